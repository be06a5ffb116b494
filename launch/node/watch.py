"""What a student node's supervisor decides, from what it sees of its ranks. Pure.

The agent (torchrun) restarts its ranks whenever one fails or the membership changes, and cannot
tell a script that cannot work from a node that was taken away. So the agent gets a restart budget
without end, and this judges: a group that is restarted again and again without coming further than
any before it has a fault of its own, and a rank may say itself that a restart is of no use. And the
agent waits for ranks that are frozen; these are killed here, once the coordinator has written them
off.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

from edldist_launch.node.agent import EXIT_CLOSED
from edldist_launch.process.exits import EXIT_USAGE

__all__ = ["AgentRestarts", "NodeWatch", "Progress", "RankProcess"]

AGENT_TRIES = 6
_FIRST_DELAY_S = 1.0
_FINAL = (0, EXIT_USAGE, EXIT_CLOSED)


class RankProcess(NamedTuple):
    """One process of a rank, as it was started.

    Attributes:
        name: what it is called wherever it registers.
        pid: its process id, as this node's supervisor sees it.
        start_ticks: when it started, in the kernel's count; 0 where that is not known.
    """

    name: str
    pid: int
    start_ticks: int


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
        self._ranks: dict[str, RankProcess] = {}
        self._suspects: frozenset[str] = frozenset()
        self._seen = 0
        self._groups = 0
        self._heeding: set[str] = set()
        self._stopped: set[str] = set()

    def see_notes(self, text: str) -> None:
        """All notes of this node's ranks so far.

        A line ``start NAME PID TICKS`` for each start, and what the ranks say (``edldist.lifecycle.notes``).
        """
        lines = [line.split(maxsplit=2) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        started = [_rank_process(*words[1:]) for words in lines if words[:1] == ["start"]]
        names = {rank.name for rank in started}
        for kind, *words in filter(None, lines):
            # Only ranks of this node count; what else they started may inherit the variable.
            if not words or words[0] not in names:
                continue
            if kind == "end" and self.verdict is None:
                self.verdict = words[1].strip()
            elif kind == "heeds":
                self._heeding.add(words[0])
            elif kind == "stopped":
                self._stopped.add(words[0])
        if len(started) == self._seen:
            return
        self._seen = len(started)
        groups = -(-len(started) // self._nproc)
        anew = groups - max(self._groups, 1)
        if anew > 0:
            self.restarts += anew
            self._fruitless += anew
        self._groups = groups
        self._ranks = {rank.name: rank for rank in started[(groups - 1) * self._nproc :]}

    @property
    def processes(self) -> Collection[str]:
        """Names of the processes of the ranks that were started last."""
        return self._ranks.keys()

    @property
    def heeding(self) -> int:
        """How many of these save first when they are asked to stop."""
        return len(self._heeding & self._ranks.keys())

    @property
    def stopped(self) -> bool:
        """Whether one of these has ended because it was asked to."""
        return not self._stopped.isdisjoint(self._ranks)

    def see_progress(self, progress: Iterable[tuple[str, Progress]]) -> None:
        """How far ranks have come, by the names of their processes; those of others count for nothing.

        A process may have several loaders: the one that came furthest counts.
        """
        for name, seen in progress:
            if name in self._ranks and seen.batches > 0 and (seen.epoch, seen.samples) > self._furthest:
                self._furthest = (seen.epoch, seen.samples)
                self._fruitless = 0

    def written_off(self, lost: Collection[str], members: Collection[str], sure: bool) -> list[RankProcess]:
        """Those of our ranks that are to be killed, because they are frozen.

        Args:
            lost: names of the processes that the coordinator lost since the last look.
            members: those that it knows now.
            sure: whether this side could reach the coordinator all the time. If not, a lost rank may
                have been cut off with this whole host, and gets the time to register anew.
        """
        self._suspects = (self._suspects | frozenset(lost)) & self._ranks.keys()
        if not sure:
            return []
        due = [self._ranks[name] for name in sorted(self._suspects - frozenset(members))]
        self._suspects = frozenset()
        return due

    @property
    def furthest(self) -> tuple[int, int]:
        """The furthest position (epoch, samples) that a rank of this node came to by labelled batches."""
        return self._furthest

    @property
    def fruitless(self) -> int:
        """Restarts in a row after which no rank came further than any before."""
        return self._fruitless

    @property
    def hopeless(self) -> bool:
        """Whether restarting has been fruitless for too long."""
        return self._fruitless > self.max_fruitless


def _rank_process(name: str, place: str) -> RankProcess:
    pid, _, ticks = place.partition(" ")
    return RankProcess(name, int(pid), int(ticks))


class AgentRestarts:
    """Whether an agent that ended is started again, and after how long. Pure.

    The agent of an elastic node never gives up because of its ranks. When it ends by itself, it waited in
    vain for a coordinator, or for another node, or was killed; the job may well go on elsewhere. So
    it is started again, ``AGENT_TRIES`` times in a row at most unless the ranks came further meanwhile,
    after 1 s, 2 s, 4 s and so on.
    """

    def __init__(self) -> None:
        self.tries = 0
        self._furthest = (-1, -1)

    def ended(self, code: int, furthest: tuple[int, int]) -> float | None:
        """Seconds until the next start, or None when this end is final.

        Args:
            code: its exit code; negative for a signal.
            furthest: position that this node's ranks have come to.
        """
        if code in _FINAL:
            return None
        if furthest > self._furthest:
            self._furthest = furthest
            self.tries = 0
        if self.tries == AGENT_TRIES:
            return None
        self.tries += 1
        return float(_FIRST_DELAY_S * 2 ** (self.tries - 1))
