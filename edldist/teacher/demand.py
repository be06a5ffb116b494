"""Whom a teacher worker asks for how much. Pure: link states in, pulls out.

A worker keeps room for two turns: one computing, one travelling. A turn is a full forward pass;
where passes take less than a message is worth, it is several. It asks the hungriest student first
(fewest labelled batches; among equals, the one asked longest ago), and never has two pulls open on
one link. A student that answered idle is asked again once it wakes the worker.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Demand", "PullOrder"]

_TURN_S = 0.002
_TURN_BYTES = 1 << 20
_MOST_PASSES = 8


@dataclass(frozen=True, slots=True)
class PullOrder:
    """Ask ``student`` for up to ``samples`` samples."""

    student: str
    samples: int


@dataclass(slots=True)
class _Link:
    pulled: int = 0  # samples of the open pull
    asleep: bool = False
    buffered: int = 0
    asked: int = 0  # number of the last pull, for fairness
    held: int = 0


class Demand:
    """The room of one worker, spread over its students.

    Args:
        batch_size: samples of a full forward pass.
        turns: turns that may be held or asked for at once.
    """

    def __init__(self, batch_size: int, turns: int = 2) -> None:
        self.batch_size = batch_size
        self.turns = turns
        self._passes = 1  # of a turn
        self._links: dict[str, _Link] = {}
        self._asks = 0

    @property
    def turn(self) -> int:
        """Samples that one pull asks for."""
        return self.batch_size * self._passes

    def paced(self, samples: int, compute_s: float, nbytes: int) -> None:
        """A pass over so many samples, of so many bytes of inputs, took that long."""
        if samples:
            brief = _TURN_S / max(compute_s, 1e-9) * samples / self.batch_size
            small = _TURN_BYTES / max(nbytes, 1) * samples / self.batch_size
            self._passes = int(min(_MOST_PASSES, max(1.0, min(brief, small))))

    @property
    def held(self) -> int:
        """Samples that wait for, are in, or left the model and are not answered yet."""
        return sum(link.held for link in self._links.values())

    def connected(self, student: str) -> None:
        """A student welcomed this worker; whatever was open before is void."""
        held = self._links[student].held if student in self._links else 0
        self._links[student] = _Link(held=held)

    def disconnected(self, student: str) -> None:
        self._links.pop(student, None)

    def granted(self, student: str, samples: int, buffered: int) -> None:
        """The answer to a pull brought samples."""
        link = self._links[student]
        link.pulled = 0
        link.held += samples
        link.buffered = buffered

    def idled(self, student: str, buffered: int) -> None:
        """The answer to a pull was: nothing now."""
        link = self._links[student]
        link.pulled = 0
        link.asleep = True
        link.buffered = buffered

    def woken(self, student: str, buffered: int) -> None:
        link = self._links[student]
        link.asleep = False
        link.buffered = buffered

    def finished(self, student: str, samples: int) -> None:
        """Samples were answered, failed or given back."""
        link = self._links.get(student)
        if link is not None:
            link.held -= samples

    def state(self, student: str) -> tuple[bool, bool]:
        """Whether a pull of this student is open, and whether it is asleep."""
        link = self._links.get(student)
        return (False, False) if link is None else (link.pulled > 0, link.asleep)

    def next_pull(self) -> PullOrder | None:
        """The pull to send now, if any; call again until None."""
        room = self.turns * self.turn
        for link in self._links.values():
            room -= link.held + link.pulled
        if room < self.turn:
            return None
        best: tuple[int, int] | None = None
        chosen = ""
        for student, link in self._links.items():
            if link.pulled or link.asleep:
                continue
            key = (link.buffered, link.asked)
            if best is None or key < best:
                best, chosen = key, student
        if best is None:
            return None
        self._asks += 1
        link = self._links[chosen]
        link.asked = self._asks
        link.pulled = self.turn
        return PullOrder(chosen, self.turn)
