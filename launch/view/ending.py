"""How the students of a job end, from what its coordinator tells. Pure.

Their nodes say so (``node_ended``, with an exit code). Ranks alone do not: they leave, too, when their
group is put together anew. Only where nobody runs nodes, as under a bare torchrun, ranks that said goodbye
have come to their end, and those that fell silent have not.
"""

from __future__ import annotations

from typing import Literal

from edldist.signals import EXIT_INTERRUPTED, EXIT_STOPPED
from edldist.wire.messages import Event, Status

__all__ = ["Ending"]


class Ending:
    """Follows the students of one coordinator, which may be replaced meanwhile.

    Args:
        nodes_tell: whether nothing but a node's word is the end.

    Attributes:
        students: how many ranks are here.
        begun: whether any were.
        told: whether a node has ended since the last student came.
    """

    def __init__(self, nodes_tell: bool) -> None:
        self._nodes_tell = nodes_tell
        self.students = 0
        self.begun = False
        self._lost = False
        self._codes: list[int] = []  # of nodes that have ended since the last student came

    @property
    def told(self) -> bool:
        return bool(self._codes)

    @property
    def word(self) -> Literal["completed", "failed", "interrupted"]:
        """How those that were here last have ended, where none is here; interrupted: others go on."""
        if 0 in self._codes:
            return "completed"
        if self._codes:
            asked = all(code in (EXIT_STOPPED, EXIT_INTERRUPTED) for code in self._codes)
            return "interrupted" if asked else "failed"
        if self._nodes_tell:
            return "interrupted"
        return "failed" if self._lost else "completed"

    @property
    def reason(self) -> str:
        """Why they have failed, as far as a coordinator knows; empty where they have not."""
        if self.word != "failed":
            return ""
        if not self._codes:
            return "the student's ranks fell silent; read what they printed last"
        failed = [code for code in self._codes if code not in (EXIT_STOPPED, EXIT_INTERRUPTED)]
        codes = ", ".join(dict.fromkeys(map(str, failed)))
        return f"a student node ended with exit code {codes}; read what it printed last"

    @property
    def over(self) -> bool:
        """Whether nobody trains any more, nor will: nodes have said so."""
        return not self.students and self.told and self.word != "interrupted"

    def see(self, status: Status) -> bool:
        """Take in what is new; whether the students' end is, or another word about it."""
        before = self.students
        self.students = sum(member.role == "student" for member in status.members)
        told = False
        for event in status.records:
            if not isinstance(event, Event):
                continue
            if event.event in ("student_joined", "student_left", "student_lost"):
                self._lost = event.event == "student_lost"
                self.begun = True
            if event.event == "student_joined":
                self._codes.clear()
            elif event.event == "node_ended":
                code = event.fields.get("code")
                self._codes.append(code if isinstance(code, int) else 0)
                told = self.begun = True
        self.begun = self.begun or self.students > 0
        return not self.students and (before > 0 or told)
