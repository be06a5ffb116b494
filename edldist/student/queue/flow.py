"""The bounds of a label queue. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from edldist.errors import ConfigError
from edldist.student.queue.easing import Easing

__all__ = ["Flow"]


@dataclass(frozen=True, slots=True)
class Flow:
    """When batches are read and how they are cut, and how long leases hold.

    Attributes:
        low_watermark, high_watermark: batches that are labelled or wait for a worker. Reading the
            data loader pauses at the high one and resumes at the low one.
        max_bytes: bound on the memory of all open batches, leased ones too: all that is in them, and their
            labels. One batch is always admitted. Labels that are still to come count as much as those of the
            batch that was labelled last, and the next batch is taken to be as large as the last one. Until
            one is labelled, leased batches count towards the high watermark, because nobody knows what their
            labels will take.
        task_size: cut every batch at multiples of this, whoever pulls. None: cut to each pull.
        fixed: deterministic cuts (``task_size``, or whole batches), each alone in its forward
            pass; leased batches count towards the high watermark, so that reading ahead depends
            on consumption alone.
        max_attempts: failed attempts that make a task poison.
        verdict_s: how long a task that seems to kill workers waits for one of them to prove alive.
        first_deadline_s: age at which a worker's first lease is overdue: it is offered to others too. Later
            deadlines are learnt: ten times the worker's own latency, at least ``min_deadline_s``.
        hang_s: how long after its deadline the lease of a worker that lives speaks against the task.
        easing: what narrows these bounds meanwhile; all that ever changes of them.
    """

    low_watermark: int = 2
    high_watermark: int = 8
    max_bytes: int = 4 << 30
    task_size: int | None = None
    fixed: bool = False
    max_attempts: int = 3
    verdict_s: float = 3.0
    first_deadline_s: float = 300.0
    min_deadline_s: float = 10.0
    hang_s: float = 300.0
    easing: Easing = field(default_factory=Easing, compare=False)

    def __post_init__(self) -> None:
        for name in ("high_watermark", "max_bytes", "max_attempts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.low_watermark < self.high_watermark:
            raise ConfigError(
                f"low_watermark={self.low_watermark}, high_watermark={self.high_watermark}: "
                "needs 0 <= low_watermark < high_watermark"
            )
        if self.task_size is not None and self.task_size < 1:
            raise ConfigError(f"task_size={self.task_size}: must be at least 1 sample")
        for name in ("first_deadline_s", "min_deadline_s", "hang_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)}: must be above 0 seconds")

    @property
    def cuts_fixed(self) -> bool:
        """Whether the cuts are the same whoever pulls."""
        return self.fixed or self.task_size is not None
