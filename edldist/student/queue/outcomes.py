"""What the label queue tells its caller. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Grant", "Overdue", "Poison", "Returned", "TakenBack"]


class Grant(NamedTuple):
    """A lease as the service sends it: samples ``start`` to ``stop`` of a batch, for one teacher.

    Attributes:
        cost: in the units in which workers pull.
        own_pass: whether it needs a forward pass of its own.
        pieces: what of it still lacks labels, in order. All of it, unless it was overdue and others have
            labelled a part meanwhile.
    """

    lease: int
    teacher: str
    batch: int
    start: int
    stop: int
    cost: int
    own_pass: bool
    pieces: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Poison:
    """A task that no attempt could label: some samples, of those that its teacher sees of a batch.

    ``blameless``: the workers that failed on it, once for each time, where they agree that anybody would.
    """

    teacher: str
    batch: int
    samples: Sequence[int]
    attempts: list[str]
    blameless: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Returned:
    """What a lost worker, a failure or a deadline sent back to the front."""

    requeued: int
    poison: list[Poison]


@dataclass(frozen=True, slots=True)
class Overdue:
    """A worker that lives and has not answered in time.

    Attributes:
        worker: its name.
        leases: how many of its leases are overdue since now.
        held_s: how long it has held the oldest of them.
        allowed_s: how long it had.
        returned: its tasks that are offered to others too, and those that are given up.
    """

    worker: str
    leases: int
    held_s: float
    allowed_s: float
    returned: Returned


@dataclass(frozen=True, slots=True)
class TakenBack:
    """What becomes of the labels of a worker that was put aside.

    Attributes:
        returned: the tasks that it still held.
        samples: of open batches that others label again.
        consumed: samples of its that the loop has had already, since it is here.
    """

    returned: Returned
    samples: int
    consumed: int
