"""Whom a teacher worker asks for how much. Pure: link states in, pulls out.

A worker keeps room for two turns: one computing, one travelling. A turn is a full forward pass;
where passes take less than a message is worth, it is several. It asks the hungriest student first
(fewest labelled batches; among equals, the one asked longest ago). Where jobs say what they may have, it is
one of the job whose turn it is (``shares``). An only student is asked for both turns before it has answered:
where inputs take longer to travel than to compute, the next ones then follow without a gap. Of several, one
that is dead must not keep both turns from the others. A student that answered idle is asked again once it
wakes the worker.

What is held and asked for is bounded by bytes, too: of inputs and of the labels that they will have, by what
rows took so far. Where two turns would be more, turns are smaller: one still travels while one computes.

Students answer pulls in their order, so an answer closes those before it too: theirs were lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edldist.teacher.service.shares import Shares
from edldist.wire.messages import JobShare

__all__ = ["MOST_BYTES", "Demand", "PullOrder"]

_TURN_S = 0.002
_TURN_BYTES = 1 << 20
_MOST_PASSES = 8
MOST_BYTES = 2 << 30
"""Of inputs and labels in a worker's hands, or asked for. A single row may be larger."""


@dataclass(frozen=True, slots=True)
class PullOrder:
    """Ask ``student`` for tasks that cost up to ``room``. ``seq`` grows from order to order."""

    student: str
    seq: int
    room: int


@dataclass(slots=True)
class _Link:
    held: int = 0  # Invariant: the cost of this student's tasks in the ledger
    open: dict[int, int] = field(default_factory=dict)  # room of each pull that waits for its answer
    asked: int = 0  # number of the last pull
    asleep: bool = False
    buffered: int = 0

    def close(self, seq: int) -> int:
        """The pulls up to this one are answered, or lost; the room of all of them."""
        return sum([self.open.pop(each) for each in list(self.open) if each <= seq])


class Demand:
    """The room of one worker, spread over its students.

    Args:
        batch_size: cost of a full forward pass: a sample costs 1, one with a length costs its length.
        turns: turns that may be held or asked for at once.
        most_bytes: of these.
    """

    def __init__(self, batch_size: int, turns: int = 2, most_bytes: int = MOST_BYTES) -> None:
        self.batch_size = batch_size
        self.turns = turns
        self._most_bytes = most_bytes
        self._row_bytes = 0.0  # of its inputs and its labels; 0 until that is known
        self._passes = 1  # of a turn
        self._links: dict[str, _Link] = {}
        self._shares = Shares()
        self._asks = 0

    @property
    def turn(self) -> int:
        """Room that one pull asks for, 1 or more."""
        wanted = self.batch_size * self._passes
        if self._row_bytes * self.turns * wanted <= self._most_bytes:
            return wanted
        return max(1, int(self._most_bytes / self._row_bytes) // self.turns)

    def weighed(self, row_bytes: float) -> None:
        """What cost 1 took so many bytes, of inputs and labels. More counts at once, less by and by."""
        self._row_bytes = max(row_bytes, self._row_bytes + (row_bytes - self._row_bytes) / 4)

    def paced(self, cost: int, compute_s: float, nbytes: int) -> None:
        """A pass over tasks of such a cost, of so many bytes of inputs, took that long."""
        if cost:
            brief = _TURN_S / max(compute_s, 1e-9) * cost / self.batch_size
            small = _TURN_BYTES / max(nbytes, 1) * cost / self.batch_size
            self._passes = int(min(_MOST_PASSES, max(1.0, min(brief, small))))

    @property
    def asked(self) -> int:
        """Room of the pulls that were not answered yet."""
        return sum(sum(link.open.values()) for link in self._links.values())

    @property
    def asked_bytes(self) -> int:
        """What they may bring and will have for labels, by what rows took so far."""
        return int(self.asked * self._row_bytes)

    @property
    def held(self) -> int:
        """Cost of what waits for, is in, or left the model and is not answered yet."""
        return sum(link.held for link in self._links.values())

    @property
    def idle(self) -> bool:
        """Whether nothing is held, and no student has anything to give, or is still to say so."""
        return not any(link.held or link.open for link in self._links.values())

    def connected(self, student: str, share: JobShare | None = None) -> None:
        """A student welcomed this worker; whatever was held or open before is void.

        Args:
            share: what its job may have of this worker.
        """
        self.disconnected(student)
        self._links[student] = _Link()
        self._shares.joined(student, share or JobShare())

    def disconnected(self, student: str) -> None:
        if (link := self._links.get(student)) is not None:
            self._charge(student, -link.close(link.asked))
            del self._links[student]
            self._shares.left(student)

    def granted(self, student: str, seq: int, cost: int, buffered: int) -> None:
        """The answer to a pull brought tasks of such a cost."""
        link = self._links[student]
        link.asleep = False
        self._charge(student, cost - link.close(seq))
        link.held += cost
        link.buffered = buffered

    def idled(self, student: str, seq: int, buffered: int) -> bool:
        """The answer to a pull was: nothing now. False if that pull is of an earlier life of the link."""
        link = self._links[student]
        if seq not in link.open and seq != link.asked:
            return False
        self._charge(student, -link.close(seq))
        link.asleep = True
        link.buffered = buffered
        if self._shares.several:
            self._shares.rests(student, self._active())
        return True

    def woken(self, student: str, buffered: int) -> None:
        link = self._links[student]
        link.asleep = False
        link.buffered = buffered

    def finished(self, student: str, cost: int) -> None:
        """Tasks of such a cost were answered, failed or given back."""
        link = self._links.get(student)
        if link is not None:
            link.held -= cost

    def state(self, student: str) -> tuple[int, bool]:
        """Number of the last pull if it is open, else 0, and whether the student let this worker sleep."""
        link = self._links.get(student)
        return (0, False) if link is None else (max(link.open, default=0), link.asleep)

    def validate(self, held: Mapping[str, int]) -> None:
        """Check the invariants. For tests; raises AssertionError.

        Args:
            held: cost of what is held, by student.
        """
        assert held.keys() <= self._links.keys(), f"{held.keys() - self._links.keys()} are not connected"
        for student, link in self._links.items():
            assert link.held == held.get(student, 0), f"{student}: {link.held} of {held.get(student, 0)}"
            assert all(0 < seq <= link.asked for seq in link.open), f"{student}: {link.open} of {link.asked}"

    def next_pull(self) -> PullOrder | None:
        """The pull to send now, if any; call again until None."""
        room = self.turns * self.turn
        for link in self._links.values():
            room -= link.held + sum(link.open.values())
        if room < self.turn:
            return None
        shares = self._shares if self._shares.several else None
        best: tuple[float, ...] | None = None
        chosen = ""
        for student, link in self._links.items():
            if link.asleep or (link.open and len(self._links) > 1):
                continue
            hunger = (link.buffered, link.asked)
            key = hunger if shares is None else (*shares[student].place, *hunger)
            if best is None or key < best:
                best, chosen = key, student
        if best is None:
            return None
        self._asks += 1
        link = self._links[chosen]
        link.asked = self._asks
        link.open[self._asks] = self.turn
        self._charge(chosen, self.turn)
        return PullOrder(chosen, self._asks, self.turn)

    def _active(self) -> list[str]:
        """Students that have something to give, or are still to say so."""
        return [student for student, link in self._links.items() if not link.asleep]

    def _charge(self, student: str, cost: int) -> None:
        """A student's job gets so much of this worker: when it is asked, and the rest when it answers."""
        if cost and self._shares.several:
            self._shares.charge(student, cost, self._active(), self.turn)
