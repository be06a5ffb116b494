"""How many processes of each role a job on this machine should have: what people and the coordinator say."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from edldist.wire.query import StatusClient
from edldist_launch.contract.keeper import WishKeeper
from edldist_launch.contract.wishes import forget_wishes
from edldist_launch.job.nodes import StudentNodes
from edldist_launch.job.teachers import TeacherWorkers
from edldist_launch.view.observers import Observers

__all__ = ["Scaling"]


class Scaling:
    """Acts on the numbers in the job's folder and on those of the coordinator. Main thread only.

    Args:
        output: the job's folder.
    """

    def __init__(self, output: Path, observers: Observers) -> None:
        self._observers = observers
        self._keeper = WishKeeper(output, lambda line: observers.say(line, "yellow"))
        with contextlib.suppress(OSError):
            forget_wishes(output)  # of a former run

    @property
    def held(self) -> Mapping[str, int]:
        """The numbers that a person asked for, by role."""
        return self._keeper.held

    def act(
        self, client: StatusClient, teachers: TeacherWorkers, nodes: StudentNodes | None, now: float
    ) -> None:
        """Have what is wanted now: to be called after each look at the coordinator's status.

        Args:
            nodes: of the student; None where several jobs share the teachers, and nobody scales theirs.
        """
        self._keeper.read()
        if nodes is not None:
            nodes.want(self.held.get("student"), now)
        known = self._observers.groups()
        if known is None:
            return
        incarnation, groups = known
        if not self._keeper.settle(client, incarnation, groups):
            teachers.want(groups, now)
