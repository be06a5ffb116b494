"""Keeps the numbers of a job's folder and those that its coordinator holds the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edldist.errors import EdlDistError, LaunchError, RefusedError
from edldist.wire.messages import GroupStatus
from edldist.wire.query import StatusClient
from edldist_launch.contract.wishes import Wishes, read_wishes, write_wishes

__all__ = ["WishKeeper"]

TELL_S = 0.5


class WishKeeper:
    """For whoever places processes. One thread's.

    A person's number is in the folder before it is anywhere else. That of a teacher group goes to the
    coordinator, which holds it and answers with what it wants; that of student nodes is acted on by whoever
    places them.

    Args:
        output: the job's folder.
        say: tells a person one line.
    """

    def __init__(self, output: Path, say: Callable[[str], object]) -> None:
        self._output = output
        self._say = say
        self._wishes = Wishes()
        self._read: Mapping[str, int] = {}

    @property
    def held(self) -> Mapping[str, int]:
        """The numbers that a person asked for, by role."""
        return self._wishes.kept

    def read(self) -> None:
        """Look into the folder."""
        numbers = read_wishes(self._output)
        if numbers is not None and numbers != self._read:
            self._read = numbers
            self._wishes.asked(numbers)

    def settle(self, client: StatusClient, incarnation: str, groups: Sequence[GroupStatus]) -> bool:
        """Take over what the coordinator was told by others, and tell it what it does not hold.

        Args:
            incarnation: of the coordinator.
            groups: what it says of the teacher groups.

        Returns:
            Whether it was told anything: what it said of the groups is old then.
        """
        held = {group.name: group.held for group in groups if group.least is not None}
        if self._wishes.adopt(incarnation, held):
            self._write(held)
        untold = self._wishes.untold(held)
        for group, number in untold.items():
            try:
                client.scale(group, number, TELL_S)
            except RefusedError as exc:
                self._say(str(exc))
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
            self._say(f"{exc}: the number holds while this coordinator lives")
