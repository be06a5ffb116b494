"""What a running job did in a few seconds: two answers of its coordinator, as figures. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edldist.wire.messages import GroupStatus, MemberStatus, RefusedStatus, Scalar, Status

__all__ = ["JobFigures", "StudentFigures", "WorkerFigures", "figures_between"]

LEAST_S = 0.05
"""A shorter time says nothing: the member has told nothing new."""


@dataclass(frozen=True)
class WorkerFigures:
    """One teacher worker.

    Attributes:
        id, group, host: as it is registered.
        samples_per_s: that it labelled.
        busy: share of the time that its passes took; None if it told nothing new.
        pace: samples per second of its passes; None if there were none.
        pass_s: seconds of a pass; None if there were none.
        fill: samples of a pass, of the most that it may have; None if there were none.
        batch_size: that most.
        sent_bytes_per_s: of labels, through sockets.
        quarantine: why students give it nothing; empty if they do.
        out_of_memory: how often memory has run out.
        draining: it is about to leave.
    """

    id: str
    group: str
    host: str
    samples_per_s: float = 0.0
    busy: float | None = None
    pace: float | None = None
    pass_s: float | None = None
    fill: float | None = None
    batch_size: int = 0
    sent_bytes_per_s: float = 0.0
    quarantine: str = ""
    out_of_memory: int = 0
    draining: bool = False


@dataclass(frozen=True)
class StudentFigures:
    """One student rank; shares are of the time of its loop, and None where it took no batch.

    Attributes:
        id, host, teachers: as it is registered.
        called: what people call it.
        samples_per_s: that it took.
        starved: share in which it waited for labels.
        reading: share in which it was in its data loader.
        full: share of the time in which all that it may read ahead was labelled.
        buffered: labelled batches that it has not taken.
        requeued, duplicates: tasks of this time.
        bytes_per_s: of inputs and labels, through sockets.
        waiting_s: how long it has waited for the labels that it waits for now.
    """

    id: str
    host: str
    called: str
    teachers: tuple[str, ...] = ()
    samples_per_s: float = 0.0
    starved: float | None = None
    reading: float | None = None
    full: float = 0.0
    buffered: int = 0
    requeued: int = 0
    duplicates: int = 0
    bytes_per_s: float = 0.0
    waiting_s: float = 0.0

    @property
    def own(self) -> float | None:
        """Share of the time that its own steps took."""
        if self.starved is None or self.reading is None:
            return None
        return max(0.0, 1 - self.starved - self.reading)


@dataclass(frozen=True)
class JobFigures:
    """A job, as it was for ``elapsed_s``; ``missed`` are members that came or went meanwhile."""

    elapsed_s: float
    students: list[StudentFigures]
    workers: list[WorkerFigures]
    groups: list[GroupStatus]
    refused: list[RefusedStatus]
    missed: list[str]

    def of_group(self, name: str) -> list[WorkerFigures]:
        """The workers of a group."""
        return [worker for worker in self.workers if worker.group == name]


def figures_between(before: Status, after: Status) -> JobFigures:
    """What happened from one answer of a coordinator to a later one of the same life."""
    elapsed_s = max(LEAST_S, after.uptime_s - before.uptime_s)
    then = {(member.id, member.process): member for member in before.members}
    both = [
        (then[member.id, member.process], member)
        for member in after.members
        if (member.id, member.process) in then
    ]
    now = {(member.id, member.process) for member in after.members}
    return JobFigures(
        elapsed_s,
        [_student(*pair, elapsed_s) for pair in both if pair[1].role == "student"],
        [_worker(*pair, elapsed_s) for pair in both if pair[1].role == "teacher"],
        after.groups,
        after.refused,
        sorted({member for member, _ in now ^ then.keys()}),
    )


def _worker(before: MemberStatus, after: MemberStatus, elapsed_s: float) -> WorkerFigures:
    grown = _Grown(before.stats, after.stats)
    up_s = grown["up_s"]
    samples, passes, busy_s = grown["samples"], grown["passes"], grown["busy_s"]
    batch_size = int(_number(after.stats.get("batch_size")))
    worked = passes > 0 and busy_s > 0
    return WorkerFigures(
        *(after.id, after.group, after.host),
        samples_per_s=samples / (up_s if up_s >= LEAST_S else elapsed_s),
        busy=min(1.0, busy_s / up_s) if up_s >= LEAST_S else None,
        pace=samples / busy_s if worked and samples else None,
        pass_s=busy_s / passes if worked else None,
        fill=min(1.0, samples / passes / batch_size) if worked and batch_size else None,
        batch_size=batch_size,
        sent_bytes_per_s=grown["sent_socket_bytes"] / elapsed_s,
        quarantine=str(after.stats.get("quarantine") or ""),
        out_of_memory=int(_number(after.stats.get("out_of_memory"))),
        draining=bool(after.stats.get("draining")),
    )


def _student(before: MemberStatus, after: MemberStatus, elapsed_s: float) -> StudentFigures:
    grown = _Grown(before.stats, after.stats)
    starved_s, reading_s, batches = grown["starved_s"], grown["reading_s"], grown["batches"]
    # What it waits for now is counted, and the batch that ends the wait is not there yet.
    loop_s = max(grown["loop_s"], starved_s + reading_s)
    known = loop_s >= LEAST_S and (batches > 0 or starved_s > 0)
    rank = after.info.get("rank")
    return StudentFigures(
        *(after.id, after.host),
        f"rank {rank}" if isinstance(rank, int) else after.id,
        tuple(after.teachers),
        samples_per_s=grown["samples"] / (loop_s if known else elapsed_s),
        starved=starved_s / loop_s if known else None,
        reading=reading_s / loop_s if known else None,
        full=min(1.0, grown["backpressure_s"] / elapsed_s),
        buffered=int(_number(after.stats.get("buffered"))),
        requeued=int(grown["requeued"]),
        duplicates=int(grown["duplicates"]),
        bytes_per_s=(grown["sent_socket_bytes"] + grown["received_socket_bytes"]) / elapsed_s,
        waiting_s=_number(after.stats.get("waiting_s")),
    )


class _Grown:
    """By how much figures have grown; 0 where they are not told, or began anew."""

    def __init__(self, before: Mapping[str, Scalar], after: Mapping[str, Scalar]) -> None:
        self._before = before
        self._after = after

    def __getitem__(self, name: str) -> float:
        return max(0.0, _number(self._after.get(name)) - _number(self._before.get(name)))


def _number(value: Scalar) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    return float(value)
