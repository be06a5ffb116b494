"""What a training loop has consumed, in figures."""

from __future__ import annotations

from dataclasses import dataclass, field

from edldist.observe.stages import StageClock
from edldist.wire.messages import Scalar

__all__ = ["LoopFigures"]


@dataclass(slots=True)
class LoopFigures:
    """Counts for ``DistillLoader.stats``; the service keeps them when the loader is collected.

    ``waiting_s`` is how long the loop has waited for the labels that it waits for now, 0 while it does not;
    ``loop_s`` how long after its first batch it took its last one; ``reading_s`` how long it was in its data
    loader since then. ``unmapped`` is the share of a teacher's
    probability that has no place in the student's vocabulary, where that is said, as it was measured last.
    ``waits`` counts how long it waited for each batch but the first.
    ``staleness`` is the most steps after which labels of a request were taken, where there are requests.
    ``fruitless_epochs`` counts those that found nothing in a store of what the one before had put there.
    """

    batches: int = 0
    samples: int = 0
    skipped: int = 0
    left_out: int = 0
    missed: int = 0
    discarded: int = 0
    starved_s: float = 0.0
    startup_s: float = 0.0
    waiting_s: float = 0.0
    reading_s: float = 0.0
    loop_s: float = 0.0
    epoch: int = 0
    epoch_samples: int = 0
    unmapped: float | None = None
    staleness: int | None = None
    fruitless_epochs: int = 0
    waits: StageClock = field(default_factory=StageClock)
    _first_at: float | None = None
    _waited_s: float = 0.0

    def took(self, samples: int, now: float) -> None:
        """The loop took a batch.

        Args:
            samples: how many of it count.
            now: monotonic seconds.
        """
        if self._first_at is None:
            self._first_at = now
        else:
            self.waits.took(self._waited_s)
            self._waited_s = 0.0
        self.loop_s = now - self._first_at
        self.batches += 1
        self.samples += samples

    def waited(self, seconds: float) -> None:
        """The loop had to wait for labels; before the very first batch that counts as starting up."""
        if self.batches:
            self.starved_s += seconds
            self._waited_s += seconds
        else:
            self.startup_s += seconds

    def has_read(self, seconds: float) -> None:
        """The loop was in its data loader for so long; before the very first batch that does not count."""
        if self.batches:
            self.reading_s += seconds

    def translated(self, share: float) -> None:
        """So much of a teacher's probability, on average over a batch, is none of the student's tokens'."""
        self.unmapped = share

    def as_stats(self) -> dict[str, Scalar]:
        some: dict[str, Scalar] = {} if self.unmapped is None else {"unmapped": round(self.unmapped, 6)}
        if self.staleness is not None:
            some["staleness"] = self.staleness
        if self.fruitless_epochs:
            some["store_fruitless_epochs"] = self.fruitless_epochs
        return some | {
            "batches": self.batches,
            "samples": self.samples,
            "skipped": self.skipped,
            "left_out": self.left_out,
            "missed": self.missed,
            "discarded": self.discarded,
            "starved_s": round(self.starved_s, 6),
            "startup_s": round(self.startup_s, 6),
            "waiting_s": round(self.waiting_s, 3),
            "loop_s": round(self.loop_s, 6),
            "reading_s": round(self.reading_s, 6),
            "epoch": self.epoch,
            "epoch_samples": self.epoch_samples,
        }
