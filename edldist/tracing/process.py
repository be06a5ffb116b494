"""What one process has recorded, ready to be laid beside others. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edldist.tracing.kinds import Kind
from edldist.tracing.tape import Record, records_of

__all__ = ["Exchange", "TracedProcess"]

LONGEST_S = 300.0
"""What lies further from the order than this is no record of the trace, whatever a member sends."""


class Exchange(NamedTuple):
    """An order and an answer between the coordinator and a member, as in NTP; monotonic seconds of each.

    ``ordered_s`` and ``arrived_s`` are of the coordinator's clock, the other two of the member's.
    """

    ordered_s: float
    received_s: float
    sent_s: float
    arrived_s: float


@dataclass
class TracedProcess:
    """A member of a job, and what its threads recorded.

    Attributes:
        id, role, group, host, pid, rank: as it is registered; ``rank`` of a student, where it is known.
        clock: what processes have in common whose monotonic clocks are one.
        exchanges: between the coordinator and it.
        records: of all its threads, by kind, in the order of their ends.
        names: what its records call others.
        lost: records that it had no room for, by thread.
    """

    id: str
    role: str
    group: str = ""
    host: str = ""
    pid: int = 0
    rank: int | None = None
    clock: str = ""
    exchanges: list[Exchange] = field(default_factory=list)
    records: dict[Kind, list[Record]] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)

    @property
    def is_student(self) -> bool:
        return self.role == "student"

    @property
    def called(self) -> str:
        """What people call it."""
        if self.is_student:
            return f"student rank {self.rank}" if self.rank is not None else f"student {self.id}"
        return f"{self.group or 'teacher'} {self.id}"

    def add(self, records: bytes) -> None:
        """Take in records of a thread, if they are of this trace; what began before begins with it."""
        begun = min((each.received_s for each in self.exchanges), default=0.0)
        for record in records_of(records):
            if begun <= record.end <= begun + LONGEST_S:
                self.records.setdefault(record.kind, []).append(
                    record._replace(start=max(record.start, begun))
                )

    def of(self, *kinds: Kind) -> Iterator[Record]:
        """The records of some kinds."""
        for kind in kinds:
            yield from self.records.get(kind, ())

    def peer(self, record: Record) -> str:
        """Whom a record mentions; empty if nobody."""
        return self.names.get(record.peer, "")

    def tasks(self, kind: Kind, names: Sequence[str] | Mapping[str, object]) -> Iterator[tuple[str, Record]]:
        """The records of a kind of tasks, each with its student, which is one of ``names``."""
        for record in self.records.get(kind, ()):
            student = self.id if self.is_student else self.peer(record)
            if student in names:
                yield student, record
