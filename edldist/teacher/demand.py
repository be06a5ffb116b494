"""Whom a teacher worker asks for how much. Pure: link states in, pulls out.

A worker keeps room for two full forward passes: one computing, one travelling. It asks the
hungriest student first (fewest labelled batches; among equals, the one asked longest ago), and
never has two pulls open on one link. A student that answered idle is asked again once it wakes
the worker.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Demand", "PullOrder"]


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
        passes: forward passes that may be held or asked for at once.
    """

    def __init__(self, batch_size: int, passes: int = 2) -> None:
        self.batch_size = batch_size
        self.passes = passes
        self._links: dict[str, _Link] = {}
        self._asks = 0

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
        room = self.passes * self.batch_size
        for link in self._links.values():
            room -= link.held + link.pulled
        if room < self.batch_size:
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
        link.pulled = self.batch_size
        return PullOrder(chosen, self.batch_size)
