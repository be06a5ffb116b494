"""How long processes that are asked to leave may take, within the time that an engine gives them. Pure.

Whoever stops processes gives them some time between the request and SIGKILL: Slurm's KillWait and Kubernetes'
terminationGracePeriodSeconds are 30 s unless somebody set them. In it::

    asked
      |-- a worker finishes the passes that it has begun --| drain_s
      |-- ranks take their step, with those labels, and save --------| student_s
      |                                                                    kill_s |-- SIGKILL to what is left

A worker that needs longer gives its passes back and ends. Ranks that need longer are killed by their node,
which then has the margin to collect them and to say so. An engine that kills earlier than that leaves nothing
in order.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DRAIN_S", "KILL_S", "MARGIN_S", "STUDENT_S", "Grace"]

DRAIN_S = 20.0
STUDENT_S = 25.0
KILL_S = 30.0
MARGIN_S = 2.0
"""Between each of them and the next, at least."""


@dataclass(frozen=True)
class Grace:
    """The three times, which have to follow each other.

    Attributes:
        drain_s: for a teacher worker to finish the passes that it has begun.
        student_s: for the ranks of a node to save a checkpoint and to end.
        kill_s: after which whoever stops processes kills them.

    Raises:
        ValueError: they do not, with at least ``MARGIN_S`` between them; the message names all three.
    """

    drain_s: float = DRAIN_S
    student_s: float = STUDENT_S
    kill_s: float = KILL_S

    def __post_init__(self) -> None:
        problems = []
        if self.drain_s + MARGIN_S > self.student_s:
            problems.append("ranks wait for the labels that a leaving worker still computes")
        if self.student_s + MARGIN_S > self.kill_s:
            problems.append("a node has to collect its ranks before it is killed itself")
        if problems:
            raise ValueError(
                f"drain_s {self.drain_s:g}, student_s {self.student_s:g} and kill_s {self.kill_s:g} need at "
                f"least {MARGIN_S:g} s from each to the next: {', and '.join(problems)}"
            )
