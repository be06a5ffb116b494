"""What a student node's supervisor decides, from what it sees of its ranks. Pure.

The agent (torchrun) restarts its ranks whenever one fails or the membership changes, and cannot
tell a script that crashes at once from a node that was taken away. So the agent gets a restart
budget without end, and this judges: a group that is restarted again and again without delivering
a single batch has a fault of its own. And the agent waits for ranks that are frozen; these are
killed here, once the coordinator has written them off.
"""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["NodeWatch"]


class NodeWatch:
    """Watches the ranks of one node.

    Args:
        max_fruitless: restarts in a row without a delivered batch before giving up.
    """

    def __init__(self, max_fruitless: int) -> None:
        self.max_fruitless = max_fruitless
        self.restarts = 0
        self._fruitless = 0
        self._ranks: frozenset[int] = frozenset()
        self._delivered = False

    def see_ranks(self, pids: Collection[int]) -> None:
        """The ranks that run now, by process id."""
        ranks = frozenset(pids)
        if not ranks:
            return
        if self._ranks and not ranks & self._ranks:
            self.restarts += 1
            self._fruitless = 0 if self._delivered else self._fruitless + 1
            self._delivered = False
        self._ranks = ranks

    def see_batches(self, delivered: dict[int, int]) -> None:
        """Batches that each rank of this host has delivered, by process id."""
        if any(delivered.get(pid, 0) > 0 for pid in self._ranks):
            self._delivered = True
            self._fruitless = 0

    def written_off(self, pids: Collection[int]) -> list[int]:
        """Those of the lost ranks that are ours and still run: to be killed."""
        return sorted(self._ranks & frozenset(pids))

    @property
    def hopeless(self) -> bool:
        """Whether restarting has been fruitless for too long."""
        return self._fruitless > self.max_fruitless
