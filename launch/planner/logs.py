"""The folder of a run, as a plan reads it: the rows of its workers' stages, and what its student did."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from edldist.errors import ConfigError
from edldist_launch.planner.rows import Rows, StageRow, parse_rows
from edldist_launch.planner.setting import Loop
from edldist_launch.record.earlier import read_result
from edldist_launch.record.eventfile import read_events

__all__ = ["FILES", "RunLogs", "read_logs", "student_of"]

FILES = ("stages.old.jsonl", "stages.jsonl")
"""Stage rows of a folder, the older ones first."""
LEAST_BATCHES = 10
LOW, HIGH = 2, 8
"""Watermarks of a ``DistillLoader`` that was given none."""


@dataclass(frozen=True)
class RunLogs:
    """A run.

    Attributes:
        folder: where it was written.
        rows: of one teacher's workers, by time.
        teacher: that one's name, and ``position`` its place in the job file, if that is known.
        loop: the student.
        samples: that it took.
        samples_per_s: that it took a second.
        batch_size: that the job asked for; None for ``auto``, or where nobody knows.
        low_watermark, high_watermark: of the student's queue; ``watermarks_known``: whether the run says so.
        steady: no worker joined late, left or was lost while the students ran, as far as the run says.
        damage: what could not be read, in words.
    """

    folder: Path
    rows: Sequence[StageRow]
    teacher: str
    position: int | None
    loop: Loop
    samples: int
    samples_per_s: float
    batch_size: int | None
    low_watermark: int
    high_watermark: int
    watermarks_known: bool
    steady: bool
    damage: Sequence[str] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many workers of each type of device there were."""
        workers = {(row.device, row.worker) for row in self.rows}
        devices = sorted(device for device, _ in workers)
        return {device: devices.count(device) for device in dict.fromkeys(devices)}


def read_logs(folder: Path, teacher: str | None = None) -> RunLogs:
    """Read the folder of a run.

    Args:
        folder: as ``edldist run --output`` left it, or leaves it: a run that goes on is read as far as it is.
        teacher: whose workers; None for the only one.

    Raises:
        ConfigError: it holds too little, or something else.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name the output folder of a run")
    damage: list[str] = []
    found = _rows(folder, damage)
    if not found:
        present = any((folder / name).exists() for name in FILES)
        raise ConfigError(
            f"{folder}: no stage row can be read in stages.jsonl ({'; '.join(damage)})"
            if present
            else f"{folder}: there is no stages.jsonl, so nothing tells what its workers took. edldist run "
            "writes it as long as workers label; name the output folder of such a run"
        )
    name = _teacher(folder, found, teacher)
    events = list(_events(folder, damage))
    loop, samples, rate = student_of(folder, events, read_result(folder / "result.json") or {})
    rows = sorted((row for row in found if row.group == name), key=lambda row: row.t)
    cost = sum(row.size for row in rows) / sum(row.batch for row in rows)
    joined = [event for event in events if event.get("event") == "student_joined"]
    low, high = (joined[-1].get(f"{which}_watermark") if joined else None for which in ("low", "high"))
    known = isinstance(low, int) and isinstance(high, int) and 0 <= low < high
    position, batch_size = _asked(folder, name)
    return RunLogs(
        folder=folder,
        rows=rows,
        teacher=name,
        position=position,
        loop=replace(loop, sample_rows=cost),
        samples=samples,
        samples_per_s=rate,
        batch_size=batch_size,
        low_watermark=int(low) if known and low is not None else LOW,
        high_watermark=int(high) if known and high is not None else HIGH,
        watermarks_known=known,
        steady=_steady(events),
        damage=damage,
    )


def student_of(
    folder: Path, events: Sequence[Mapping[str, Any]], result: Mapping[str, Any]
) -> tuple[Loop, int, float]:
    """What the loop takes, and took: by what its ranks said when they left, else by the course of the run.

    Returns:
        The loop (a sample costing 1), the samples of the run, and how many it took a second.

    Raises:
        ConfigError: the run says too little of its student.
    """
    ranks = [event for event in events if event.get("event") == "student_left" and _is_whole(event)]
    if ranks:
        most = max(event["batches"] for event in ranks)
        # Loaders of an evaluation leave too, and ranks that were restarted come to less.
        ranks = [event for event in ranks if event["batches"] >= 0.9 * most]
        count = len({event.get("rank") for event in ranks})
        longest_s = max(event["loop_s"] for event in ranks)
        starved_s = max(event["starved_s"] for event in ranks)
        own_s = (longest_s - min(starved_s, 0.99 * longest_s)) / (most - 1)
        batch = round(max(event["samples"] / event["batches"] for event in ranks))
        rate = count * batch * (most - 1) / longest_s
        read_s = min(max(_figure(event.get("reading_s")) for event in ranks) / (most - 1), own_s)
        return (
            Loop(count, max(1, batch), own_s, read_s),
            int(result.get("samples") or count * batch * most),
            rate,
        )
    course = [event for event in events if event.get("event") == "progress" and _is_progress(event)]
    moving = [event for event in course if event["step"] > 0 and event["samples_per_s"] > 0]
    if len(moving) < 3 or moving[-1]["step"] - moving[0]["step"] < LEAST_BATCHES:
        raise ConfigError(
            f"{folder}: the run says too little of its student ({len(moving)} lines of progress, and no rank "
            f"that left after {LEAST_BATCHES} batches or more). Let it run for some ten seconds"
        )
    first, last = moving[0], moving[-1]
    elapsed_s, steps = last["t"] - first["t"], last["step"] - first["step"]
    rate = sorted(event["samples_per_s"] for event in moving)[len(moving) // 2]
    starved_s = min(max(0.0, last["starved_s"] - first["starved_s"]), 0.99 * elapsed_s)
    count = max(1, len({event.get("rank") for event in events if event.get("event") == "student_joined"}))
    batch = max(1, round(rate * elapsed_s / steps / count))
    return Loop(count, batch, (elapsed_s - starved_s) / steps), count * batch * last["step"], rate


def _figure(value: object) -> float:
    return max(0.0, float(value)) if isinstance(value, int | float) else 0.0


def _is_whole(event: Mapping[str, Any]) -> bool:
    figures = [event.get(key) for key in ("batches", "samples", "loop_s", "starved_s")]
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in figures)
    return numbers and event["batches"] >= LEAST_BATCHES and event["loop_s"] > 0 and event["samples"] > 0


def _is_progress(event: Mapping[str, Any]) -> bool:
    figures = [event.get(key) for key in ("step", "samples_per_s", "starved_s")]
    return all(isinstance(each, int | float) and not isinstance(each, bool) for each in figures)


def _rows(folder: Path, damage: list[str]) -> list[StageRow]:
    rows: list[StageRow] = []
    for name in FILES:
        try:
            with (folder / name).open("rb") as lines:
                read: Rows = parse_rows(lines)
        except FileNotFoundError:
            continue
        except OSError as exc:
            damage.append(f"{name} cannot be read: {exc.strerror or exc}")
            continue
        rows += read.rows
        if read.damaged:
            damage.append(f"{name}: {read.damaged} lines are no stage rows, as {'; '.join(read.words)}")
    return rows


def _events(folder: Path, damage: list[str]) -> Iterator[Mapping[str, Any]]:
    try:
        yield from read_events(folder / "events.jsonl")
    except OSError as exc:
        damage.append(f"events.jsonl cannot be read: {exc.strerror or exc}")


def _teacher(folder: Path, rows: Sequence[StageRow], wanted: str | None) -> str:
    names = sorted({row.group for row in rows})
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted in names:
        return str(wanted)
    listed = ", ".join(names)
    if wanted is None:
        raise ConfigError(f"{folder} has rows of several teachers ({listed}): say which with --teacher")
    raise ConfigError(f"--teacher {wanted}: {folder} has rows of {listed}")


def _asked(folder: Path, teacher: str) -> tuple[int | None, int | None]:
    """The place of a teacher in the job file, and the batch size that this asks for."""
    with contextlib.suppress(Exception):  # a file that somebody has changed
        job = yaml.safe_load((folder / "job.yaml").read_text(encoding="utf-8"))
        for position, section in enumerate(job["teachers"]):
            if section.get("name", "teacher") == teacher:
                size = section.get("batch_size")
                return position, size if isinstance(size, int) else None
    return None, None


def _steady(events: Sequence[Mapping[str, Any]]) -> bool:
    began = next((event["t"] for event in events if event.get("event") == "student_joined"), None)
    ended = next(
        (event["t"] for event in reversed(events) if event.get("event") == "student_left"), float("inf")
    )
    if began is None:
        return False
    changes = ("teacher_joined", "teacher_left", "teacher_lost", "teacher_crashed")
    return not any(event.get("event") in changes and began + 1 < event["t"] < ended for event in events)
