"""What a folder tells of a run: its result, its events and its job, as far as they can be read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from edldist.errors import ConfigError
from edldist.secret_names import without_secrets
from edldist.yamltext import dump_yaml
from edldist_launch.record.earlier import read_result
from edldist_launch.view.series import Series, collect

__all__ = ["Evidence", "read_evidence"]

MOST_DAMAGED = 5


@dataclass(frozen=True)
class Evidence:
    """All that is known of a run.

    Attributes:
        folder: where it was written.
        name: of the folder, or what tells it from others.
        result: what ``result.json`` says; empty where there is none.
        series: of the events.
        events: those that are neither reports nor progress.
        job: the resolved job file as text without secrets, empty where there is none; ``settings`` its keys,
            with dots.
        runs: whether the job still writes there.
        damage: what could not be read, in words.
    """

    folder: Path
    name: str
    result: Mapping[str, Any] = field(default_factory=dict)
    series: Series = field(default_factory=Series)
    events: Sequence[Mapping[str, Any]] = ()
    job: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    runs: bool = False
    damage: Sequence[str] = ()

    @property
    def status(self) -> str:
        """How it ended: completed, failed, interrupted, running, or killed."""
        if self.runs:
            return "running"
        return str(self.result.get("status") or "killed")

    @property
    def environment(self) -> Mapping[str, Any]:
        """Versions and machine of the latest run in the folder, as it wrote them down."""
        return next((event for event in reversed(self.events) if event["event"] == "environment"), {})


def read_evidence(folder: Path, runs: bool = False) -> Evidence:
    """What a folder tells; half of a file is read as far as it goes, and said.

    Args:
        runs: whether its job still goes on.

    Raises:
        ConfigError: no run was written there.
    """
    if (folder / "tune.json").exists():
        trials = ", ".join(sorted(path.parent.name for path in folder.glob("*/events.jsonl"))[:3])
        raise ConfigError(
            f"{folder} holds a tuning of edldist tune, whose report is in its own files; of its trials, name "
            f"folders ({trials or 'there is none yet'})"
        )
    damage: list[str] = []
    lines = list(_events(folder / "events.jsonl", damage))
    result = read_result(folder / "result.json")
    if result is None and (folder / "result.json").exists():
        damage.append("result.json is damaged: what it said is not known")
    text = _job(folder / "job.yaml", damage)
    if not lines and result is None and not text and not damage:
        raise ConfigError(
            f"{folder}: no run was written there (neither events.jsonl nor result.json nor job.yaml is in it)"
        )
    if not lines and not any(words.startswith("events.jsonl") for words in damage):
        damage.append("there is no events.jsonl: nothing is known of the run's course")
    with contextlib.suppress(Exception):  # a file that somebody has changed
        document = yaml.safe_load(text) if text.strip() else {}
        shown = without_secrets(document)
        text = text if shown == document else dump_yaml(shown)
        return _evidence(folder, lines, result, text, _flat(shown) if shown else {}, runs, damage)
    damage.append("job.yaml is damaged: settings cannot be compared")
    return _evidence(folder, lines, result, "" if "env:" in text else text, {}, runs, damage)


def _evidence(
    folder: Path,
    lines: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any] | None,
    text: str,
    settings: Mapping[str, Any],
    runs: bool,
    damage: Sequence[str],
) -> Evidence:
    return Evidence(
        folder=folder,
        name=folder.absolute().name or str(folder),
        result=result or {},
        series=collect(lines),
        events=[line for line in lines if line["event"] not in ("report", "progress")],
        job=text,
        settings=settings,
        runs=runs,
        damage=tuple(damage),
    )


def _events(path: Path, damage: list[str]) -> list[Mapping[str, Any]]:
    """The events that can be read. The last line of a run that was killed, or goes on, may be half of one."""
    found: list[Mapping[str, Any]] = []
    broken: list[int] = []
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            for number, line in enumerate(stream, 1):
                event = _event(line)
                if event is not None:
                    found.append(event)
                elif line.strip():
                    broken.append(number)
    except FileNotFoundError:
        return []
    except OSError as exc:
        damage.append(f"events.jsonl cannot be read: {exc.strerror or exc}")
    if broken:
        places = ", ".join(map(str, broken[:MOST_DAMAGED])) + (", ..." if len(broken) > MOST_DAMAGED else "")
        noun = "line" if len(broken) == 1 else "lines"
        damage.append(
            f"events.jsonl: {len(broken)} {noun} cannot be read ({noun} {places}), and are left out"
        )
    return found


def _event(line: str) -> Mapping[str, Any] | None:
    with contextlib.suppress(ValueError, RecursionError):
        event = json.loads(line)
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            t = event.get("t")
            if isinstance(t, int | float) and not isinstance(t, bool) and abs(t) < 1e12:
                return event
    return None


def _job(path: Path, damage: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as exc:
        damage.append(f"job.yaml cannot be read: {exc.strerror or exc}")
        return ""


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """The keys of a document, with dots and numbers, and their values."""
    if isinstance(value, Mapping) and value:
        parts = [_flat(item, f"{key}.{name}" if key else str(name)) for name, item in value.items()]
    elif isinstance(value, list) and value:
        parts = [_flat(item, f"{key}[{number}]") for number, item in enumerate(value)]
    else:
        return {key: value}
    return {name: item for part in parts for name, item in part.items()}
