"""Which generation of its run a rank is in, by the coordinator's word.

::

    joining --a generation with this rank forms--> member --it changed, or an operation failed--> joining
                                                     |
                                                     +--its work is done--> finished      it goes: left
"""

from __future__ import annotations

from edldist.errors import EdlDistError
from edldist.meeting.attendance import Attendance
from edldist.wire.messages import Generation, RunView
from edldist.wire.process import process_id

__all__ = ["Membership", "RunOverError"]


class RunOverError(EdlDistError):
    """The run has ended without this rank, which came too late."""


class Membership:
    """One rank's, from generation to generation. It waits for nothing; ``lost`` and ``waiting`` are for any
    thread, the rest for the one that trains.

    Args:
        attendance: what this rank reports, and is told.
        process: its name; default: this process's.

    Attributes:
        generation: the one that it is in, or was in last; None before the first.
    """

    def __init__(self, attendance: Attendance, process: str = "") -> None:
        self._attendance = attendance
        self._process = process or process_id()
        self.generation: Generation | None = None

    def lost(self) -> str:
        """Why the generation can do nothing any more; empty while it can.

        Raises:
            EdlDistError: what ended the thread that reports.
        """
        if self._attendance.error is not None:
            raise self._attendance.error
        view, here = self._attendance.answer, self.generation
        if view is None or view.generation is None or here is None:
            return ""
        if not view.generation.same(here):
            return f"generation {here.number} of the group was followed by {view.generation.number}"
        if view.gone:
            return f"{len(view.gone)} of the {len(here.nodes)} ranks of generation {here.number} are gone"
        return ""

    @property
    def waiting(self) -> int:
        """How many want to be in the next generation, which costs this one nothing until it makes room."""
        view = self._attendance.answer
        return 0 if view is None else view.waiting

    def rejoin(self) -> None:
        """Want to be in the generation after this one."""
        if self.generation is not None:
            self._attendance.tell(state="joining")

    def invited(self, view: RunView) -> bool:
        """Whether a later generation than the last one has this rank in it.

        Raises:
            RunOverError: the others have finished the run.
            EdlDistError: the coordinator refuses this rank.
        """
        if view.refused:
            raise EdlDistError(f"the coordinator refuses this rank: {view.refused}")
        if view.closed:
            raise RunOverError(f"run {view.run} is complete: the other ranks have finished it")
        found, former = view.generation, self.generation
        if found is None or (former is not None and found.number <= former.number):
            return False
        return self._process in [node.process for node in found.nodes]

    def enter(self, generation: Generation) -> int:
        """Be in a generation from now on.

        Returns:
            The number of this rank in it.
        """
        self.generation = generation
        self._attendance.tell(state="member", generation=generation)
        return [node.process for node in generation.nodes].index(self._process)
