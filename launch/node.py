"""What a student node's supervisor decides, from what it sees of its ranks. Pure.

The agent (torchrun) restarts its ranks whenever one fails or the membership changes, and cannot
tell a script that cannot work from a node that was taken away. So the agent gets a restart budget
without end, and this judges: a group that is restarted again and again without coming further than
any before it has a fault of its own, and a rank may say itself that a restart is of no use. And the
agent waits for ranks that are frozen; these are killed here, once the coordinator has written them
off.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

__all__ = ["NodeWatch", "Progress"]


class Progress(NamedTuple):
    """How far one rank has come.

    Attributes:
        batches: delivered since this process began.
        epoch, samples: its absolute position in the data.
    """

    batches: int
    epoch: int
    samples: int


class NodeWatch:
    """Watches the ranks of one node.

    Args:
        nproc_per_node: ranks that the agent starts together.
        max_fruitless: restarts in a row that came no further before giving up.
    """

    def __init__(self, nproc_per_node: int, max_fruitless: int) -> None:
        self.max_fruitless = max_fruitless
        self.restarts = 0
        self.verdict: str | None = None
        """Why a rank says that it is of no use to start it again."""
        self._nproc = nproc_per_node
        self._fruitless = 0
        self._furthest = (-1, -1)
        self._ranks: frozenset[int] = frozenset()
        self._seen = 0
        self._groups = 0

    def see_notes(self, text: str) -> None:
        """All notes of this node's ranks so far: a line ``PID`` for each start, ``PID REASON`` for an end."""
        lines = [line.partition(" ") for line in text.splitlines(keepends=True) if line.endswith("\n")]
        started = [pid.strip() for pid, _, reason in lines if not reason]
        for pid, _, reason in lines:
            # Only ranks of this node judge; what else they started may inherit the variable.
            if reason and pid in started and self.verdict is None:
                self.verdict = reason.strip()
        if len(started) == self._seen:
            return
        self._seen = len(started)
        groups = -(-len(started) // self._nproc)
        anew = groups - max(self._groups, 1)
        if anew > 0:
            self.restarts += anew
            self._fruitless += anew
        self._groups = groups
        self._ranks = frozenset(int(pid) for pid in started[(groups - 1) * self._nproc :])

    def see_progress(self, progress: Mapping[int, Progress]) -> None:
        """How far the ranks of this host have come, by process id; others' processes count for nothing."""
        for pid in self._ranks & progress.keys():
            seen = progress[pid]
            if seen.batches > 0 and (seen.epoch, seen.samples) > self._furthest:
                self._furthest = (seen.epoch, seen.samples)
                self._fruitless = 0

    def written_off(self, pids: Collection[int]) -> list[int]:
        """Those of the lost ranks that are ours: to be killed."""
        return sorted(self._ranks & frozenset(pids))

    @property
    def hopeless(self) -> bool:
        """Whether restarting has been fruitless for too long."""
        return self._fruitless > self.max_fruitless
