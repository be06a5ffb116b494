"""``edldist trace``: what members recorded, as one file that Perfetto opens."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from edldist.errors import ConfigError, EdlDistError
from edldist.tracing.process import Exchange, TracedProcess
from edldist.tracing.timeline import timeline
from edldist.wire.messages import MemberStatus
from edldist.wire.query import StatusClient
from edldist.wire.trace_query import Collected, TraceClient

__all__ = ["processes_of", "sample_for", "take_trace", "write_trace"]

MOST_TASKS_S = 200.0
"""Tasks a second that one worker follows by itself: even the smallest cost next to nothing then."""
ANSWER_S = 5.0


def processes_of(collected: Collected) -> list[TracedProcess]:
    """What came of a trace, by process."""
    processes = {
        member.id: TracedProcess(
            *(member.id, member.role, member.group, member.host, member.pid, member.rank)
        )
        for member in collected.members
    }
    for part in collected.parts:
        process = processes[part.member]
        process.clock = process.clock or part.clock
        process.exchanges.append(Exchange(part.ordered_s, part.received_s, part.sent_s, part.arrived_s))
        process.names.update(part.names)
        if part.lost:
            process.lost[part.thread] = process.lost.get(part.thread, 0) + part.lost
    for part in collected.parts:
        processes[part.member].add(part.records)
    return [process for process in processes.values() if process.clock]


def sample_for(coordinator: str) -> int:
    """One task in how many to follow, so that no worker follows more than ``MOST_TASKS_S``.

    Raises:
        CoordinatorUnreachableError: it does not answer.
        RefusedError: this is no operator's key.
    """
    with contextlib.closing(StatusClient(coordinator)) as client:
        status = client.query(0, ANSWER_S)
    return max([1, *(math.ceil(_tasks_per_s(member) / MOST_TASKS_S) for member in status.members)])


def _tasks_per_s(member: MemberStatus) -> float:
    samples, tasks = member.stats.get("samples"), member.stats.get("tasks")
    if member.role != "teacher" or not isinstance(samples, int) or not isinstance(tasks, int):
        return 0.0
    return (member.samples_per_s or 0.0) * tasks / max(1, samples)


def take_trace(coordinator: str, seconds: float, sample: int = 1) -> Collected:
    """Have the members of a job record for so long, and take in what they send.

    Raises:
        CoordinatorUnreachableError: it does not answer.
        RefusedError: another trace is under way, nobody is in the job, or this is no operator's key.
    """
    with contextlib.closing(TraceClient(coordinator)) as client:
        collected = client.begin(seconds, sample)
        client.collect(collected, seconds)
    return collected


def write_trace(coordinator: str, seconds: float, sample: int | None, output: Path) -> int:
    """Trace a job, and write one file; say what is in it, and what is missing.

    Args:
        sample: follow one task in so many; None: as ``sample_for`` says.

    Raises:
        ConfigError: the file cannot be written, which is found out before anybody records.
        EdlDistError: nobody sent anything; as for ``take_trace``.
    """
    with _written(output) as stream:
        followed = sample_for(coordinator) if sample is None else sample
        collected = take_trace(coordinator, seconds, followed)
        processes = processes_of(collected)
        if not any(process.records for process in processes):
            silent = f" {_listed(collected.silent)} did not answer." if collected.silent else ""
            raise EdlDistError(
                f"nothing was recorded in {seconds:g} s.{silent} Does the job go on (edldist status), and is "
                "a training loop at work?"
            )
        facts = {
            "seconds": seconds,
            "sample": followed,
            "taken_at": time.time(),
            "silent_members": collected.silent,
        }
        document = timeline(processes, collected.clock, facts)
        json.dump(document, stream, separators=(",", ":"))
    events, nbytes = len(document["traceEvents"]), output.stat().st_size
    print(
        f"{output}: {events} events of {len(processes)} processes, {nbytes / 1e6:.1f} MB. Open it in "
        "https://ui.perfetto.dev or chrome://tracing (docs/tracing.md says how to read it)"
    )
    if sample is None and followed > 1:
        print(
            f"one task in {followed} was followed, as there are many: --sample 1 follows all", file=sys.stderr
        )
    for line in _remarks(collected, document["otherData"], seconds):
        print(line, file=sys.stderr)
    return 0


def _remarks(collected: Collected, told: dict[str, Any], seconds: float) -> Iterator[str]:
    if collected.silent:
        yield f"nothing came of {_listed(collected.silent)}: they left, or do not answer"
    elif collected.took_s < seconds:
        yield f"the job ended after {collected.took_s:.1f} s of {seconds:g}: all that it did is there"
    if lost := told["lost_records"]:
        count = sum(sum(threads.values()) for threads in lost.values())
        yield (
            f"{count} records of {len(lost)} processes made room for later ones, so rows begin at different "
            "times: ask for fewer --seconds, or for one task in N with --sample N"
        )
    known = [clock for clock in told["clocks"].values() if isinstance(clock, dict)]
    if len(known) < len(told["clocks"]):
        names = [name for name, clock in told["clocks"].items() if not isinstance(clock, dict)]
        yield f"the clocks of {_listed(names)} could not be compared with the others': their rows are shifted"
    if error_s := max((clock["error_s"] for clock in known), default=0.0):
        yield f"clocks of different hosts are aligned within {error_s * 1e3:.3f} ms"


@contextlib.contextmanager
def _written(path: Path) -> Iterator[TextIO]:
    """A file that is there when all of it is; what was there before stays until then."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        stream = part.open("w", encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"--output {path}: cannot be written: {exc.strerror or exc}") from exc
    try:
        with stream:
            yield stream
        part.replace(path)
    except OSError as exc:
        raise ConfigError(f"--output {path}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        part.unlink(missing_ok=True)


def _listed(names: Iterable[str]) -> str:
    known = list(names)
    first, more = known[:5], len(known) - 5
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")
