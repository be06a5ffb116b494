"""How many processes of each role a job on this machine should have: what people and the coordinator say."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from edldist.errors import EdlDistError, LaunchError, RefusedError
from edldist.wire.query import StatusClient
from edldist_launch.contract.wishes import Wishes, forget_wishes, read_wishes, write_wishes
from edldist_launch.job.nodes import StudentNodes
from edldist_launch.job.teachers import TeacherWorkers
from edldist_launch.view.observers import Observers

__all__ = ["Scaling"]

TELL_S = 0.5


class Scaling:
    """Acts on the numbers in the job's folder and on those of the coordinator. Main thread only.

    A person's number is in the folder before it is anywhere else. That of a teacher group goes to the
    coordinator, which holds it and answers with what it wants; that of student nodes is acted on here.

    Args:
        output: the job's folder.
    """

    def __init__(self, output: Path, observers: Observers) -> None:
        self._output = output
        self._observers = observers
        self._wishes = Wishes()
        self._read: Mapping[str, int] = {}
        with contextlib.suppress(OSError):
            forget_wishes(output)  # of a former run

    @property
    def held(self) -> Mapping[str, int]:
        """The numbers that a person asked for, by role."""
        return self._wishes.kept

    def act(self, client: StatusClient, teachers: TeacherWorkers, nodes: StudentNodes, now: float) -> None:
        """Have what is wanted now: to be called after each look at the coordinator's status."""
        numbers = read_wishes(self._output)
        if numbers is not None and numbers != self._read:
            self._read = numbers
            self._wishes.asked(numbers)
        nodes.want(self._wishes.kept.get("student"), now)
        known = self._observers.groups()
        if known is None:
            return
        incarnation, groups = known
        held = {group.name: group.held for group in groups if group.least is not None}
        if self._wishes.adopt(incarnation, held):
            self._write(held)
        if not self._tell(client, held):
            teachers.want(groups, now)

    def _tell(self, client: StatusClient, held: Mapping[str, int | None]) -> bool:
        """Tell the coordinator what it does not hold.

        Returns:
            Whether there was anything: what it said of the groups is old then.
        """
        untold = self._wishes.untold(held)
        for group, number in untold.items():
            try:
                client.scale(group, number, TELL_S)
            except RefusedError as exc:
                self._observers.say(str(exc), "yellow")
                self._wishes.refused(group)
                self._write({group: None})
            except EdlDistError:
                break  # it is being started again, and will be told
            else:
                self._wishes.told(group)
        return bool(untold)

    def _write(self, groups: Mapping[str, int | None]) -> None:
        try:
            write_wishes(self._output, {group: self._wishes.kept.get(group) for group in groups})
        except LaunchError as exc:
            self._observers.say(f"{exc}: the number holds while this coordinator lives", "yellow")
