"""A task of the label queue, and what speaks against it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Suspicion", "Task"]

_ALONE_AFTER = 2
_MOST_FORGIVEN = 10


class Suspicion(NamedTuple):
    """A worker was lost while it held a task; ``alone``: that one only."""

    worker: str
    text: str
    alone: bool


@dataclass(slots=True, eq=False)
class Task:
    """Samples ``start`` to ``stop`` of a batch, to be labelled by one teacher.

    A model that *failed* on it is one failed attempt. A worker that was *lost* with it only makes it
    suspected, because workers die for other reasons: after two suspicions it is leased alone, and a
    third one is an accusation until ``verdict_at``.
    """

    teacher: str
    batch: int
    start: int
    stop: int
    failures: list[str] = field(default_factory=list)
    failed_by: set[str] = field(default_factory=set)
    failed_at: float = 0.0  # the last time
    suspicions: list[Suspicion] = field(default_factory=list)
    verdict_at: float | None = None  # accused until then
    forgiven: int = 0
    leases: set[int] = field(default_factory=set)

    @property
    def samples(self) -> int:
        return self.stop - self.start

    @property
    def place(self) -> tuple[int, int]:
        return (self.batch, self.start)

    @property
    def alone(self) -> bool:
        """Whether it is suspected so much that it is leased alone."""
        return len(self.suspicions) >= _ALONE_AFTER

    @property
    def attempts(self) -> list[str]:
        """What counts as failed attempts."""
        proven = any(one.alone for one in self.suspicions)
        return self.failures + ([one.text for one in self.suspicions] if proven else [])

    def forgive(self, worker: str, max_attempts: int) -> None:
        """A worker that was lost with this task is alive: that counts no more."""
        # Its last loss only: a process before it under the same name may well have died.
        last = next((one for one in reversed(self.suspicions) if one.worker == worker), None)
        if last is None or self.forgiven >= _MOST_FORGIVEN:
            return
        self.suspicions.remove(last)
        self.forgiven += 1
        if len(self.attempts) < max_attempts:
            self.verdict_at = None

    def split(self, samples: int) -> Task:
        """Keep the first so many samples; the rest as a task with the same past."""
        rest = Task(
            *(self.teacher, self.batch, self.start + samples, self.stop),
            failures=list(self.failures),
            failed_by=set(self.failed_by),
            failed_at=self.failed_at,
            suspicions=list(self.suspicions),
            forgiven=self.forgiven,
        )
        self.stop = self.start + samples
        return rest
