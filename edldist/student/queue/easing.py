"""What narrows the bounds of a label queue while the fleet is overloaded. Pure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Easing"]


@dataclass(slots=True)
class Easing:
    """Changes from time to time, under the lock of whoever guards the queue.

    Attributes:
        credits: batches that may be labelled or wait for a worker, if that is less than the high watermark.
        waits: no batch is read, until there is room for the job.
    """

    credits: int | None = None
    waits: bool = False
