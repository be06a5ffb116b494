"""How long the processes of a job on this machine may take to leave, one kind after the other. Pure.

Students first, since they save a checkpoint, then teacher workers, which nobody needs any more, then the
coordinator, which hears from all of them. Whoever asked this job to stop kills it after ``kill_s``: by then
everything has to be over, and the result written.
"""

from __future__ import annotations

from edldist.coordinator.closing import LEAVE_S
from edldist.grace import Grace

__all__ = ["Leaving"]

NODE_S = 1.0
"""A node gives its ranks ``student_s``, and must be able to kill those that stay."""
WORKER_S = 5.0
"""The same of a worker, which gives back what has not ended by then, and says goodbye."""
TEACHERS_S = 10.0
COORDINATOR_S = LEAVE_S + 2.0
"""It may wait for ``LEAVE_S`` for those who are still connected, and then writes down how the run went."""
LAST_WORDS_S = 1.0
"""What is kept for the coordinator, and what for the result."""
LEAST_S = 0.5


class Leaving:
    """The times of one job.

    Args:
        grace: of the job.
    """

    def __init__(self, grace: Grace) -> None:
        self._grace = grace

    @property
    def students_s(self) -> float:
        """For student nodes, in mid-run, too."""
        return self._grace.student_s + NODE_S

    @property
    def drain_s(self) -> float:
        """For a teacher worker in mid-run."""
        return self._grace.drain_s + WORKER_S

    def teachers_s(self, asked_s: float | None) -> float:
        """For teacher workers, and for a job's preparation.

        Args:
            asked_s: seconds since this job was asked to stop; None for one that ends by itself.
        """
        return self._within(min(TEACHERS_S, self._grace.drain_s), asked_s, 2 * LAST_WORDS_S)

    def coordinator_s(self, asked_s: float | None) -> float:
        """For the coordinator; ``asked_s`` as for ``teachers_s``."""
        return self._within(COORDINATOR_S, asked_s, LAST_WORDS_S)

    def _within(self, most_s: float, asked_s: float | None, kept_s: float) -> float:
        if asked_s is None:
            return most_s
        return max(LEAST_S, min(most_s, self._grace.kill_s - kept_s - asked_s))
