"""What is known of a job by whoever watches it, for who takes over: a coordinator may be replaced."""

from __future__ import annotations

import msgspec

from edldist.wire.messages import Scalar

__all__ = ["Memory", "TallyMemory"]


class TallyMemory(msgspec.Struct, frozen=True):
    """A ``Tally``. ``first`` and ``last`` are ages in seconds, with the samples of that moment."""

    metrics: dict[str, Scalar]
    teachers: dict[str, int]
    spikes: dict[str, int]
    checkpoint: int | None
    present: list[str]
    numbered: dict[str, int]
    position: dict[str, int]
    stats: dict[str, dict[str, float]]
    processes: list[tuple[Scalar, list[str]]]
    evaluating: list[str]
    first: tuple[float, float] | None
    last: tuple[float, float]
    worker_s: float = 0.0


class Memory(msgspec.Struct, frozen=True):
    """All that is kept.

    Attributes:
        submission: of the job; another one's figures are its own.
        began, kept_at: unix seconds.
    """

    submission: str
    began: float
    kept_at: float
    tally: TallyMemory
