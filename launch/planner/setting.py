"""What a plan chooses, and for whom: the settings of a job, and the training loop that takes the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Loop", "Setting"]


@dataclass(frozen=True)
class Loop:
    """The student: ranks that take their steps together.

    Attributes:
        ranks: how many.
        batch_samples: of one rank's batch.
        own_s: seconds from one batch to the next, of a loop that never waits for labels.
        read_s: seconds of these in which it reads its data loader.
        sample_rows: what a sample costs, in what batch sizes count: 1, or the mean length of a sequence.
    """

    ranks: int
    batch_samples: int
    own_s: float
    read_s: float = 0.0
    sample_rows: float = 1.0

    @property
    def batch_rows(self) -> int:
        """What a rank's batch costs."""
        return max(1, round(self.batch_samples * self.sample_rows))

    @property
    def samples_per_s(self) -> float:
        """What all ranks take when they never wait."""
        return self.ranks * self.batch_samples / self.own_s


@dataclass(frozen=True)
class Setting:
    """What can be chosen.

    Attributes:
        batch_size: rows of a full forward pass.
        high_watermark: batches that a student reads ahead.
        counts: types of devices, and how many workers are on each, none of them 0.
        low_watermark: at so many batches it reads on; None for a quarter of the high one, as by default.
    """

    batch_size: int
    high_watermark: int
    counts: tuple[tuple[str, int], ...]
    low_watermark: int | None = None

    @classmethod
    def of(cls, batch_size: int, high_watermark: int, counts: Mapping[str, int]) -> Setting:
        """One with some workers of each type, in the order of their names."""
        return cls(batch_size, high_watermark, tuple(sorted((d, n) for d, n in counts.items() if n)))

    @property
    def low(self) -> int:
        return self.high_watermark // 4 if self.low_watermark is None else self.low_watermark

    @property
    def workers(self) -> int:
        """How many there are in all."""
        return sum(count for _, count in self.counts)
