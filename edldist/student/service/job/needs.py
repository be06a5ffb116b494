"""What a student needs of its teacher groups, as it tells the coordinator with each heartbeat. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from edldist.wire.messages import Need, Scalar

__all__ = ["Backlog", "Hunger", "Needs"]

WINDOW_S = 10.0
WINDOW_BATCHES = 20
LONGEST_WINDOW_S = 60.0
"""What a loop takes is measured over so long, and over so many batches, but not for longer than that."""
LEAST_LOOKS = 4
PAUSE_S, PAUSE_GAPS = 10.0, 5.0
"""So long, and so many times longer than usual without a batch is no step: an evaluation, a checkpoint."""
LEAST_WORK = 0.01
"""At least so much of the time counts as the loop's own: less cannot be told from none."""
SHARE_SMOOTHING = 0.1
LEAST_SHARE = 0.01
"""A group that labels a smaller share of the samples is not needed, unless something waits for it now."""


class _Look(NamedTuple):
    at: float
    batches: int
    samples: int
    starved_s: float


class Hunger:
    """Samples per second that a loop would take if it never waited for labels.

    That is what it took, over the time in which it did not wait. It does not depend on how many workers there
    are: with too few of them, the loop waits for longer, and its own work takes as long as before.

    A loop that does not wait for its device (no ``.item()`` in it) seems to take more while it starves: the
    device works while the loop waits for labels. Fed well, it is held up by the device, and the figure is
    right.

    Attributes:
        value: None until the loop took some batches.
        starved: share of the time in which that was measured that the loop waited for labels.
    """

    def __init__(self) -> None:
        # Invariant: both figures grow from look to look, and starved_s does not fall.
        self._looks: deque[_Look] = deque()
        self.value: float | None = None
        self.starved: float | None = None

    def see(self, now: float, batches: int, samples: int, starved_s: float) -> None:
        """Take in what the loop has counted so far.

        Time without a batch counts once there is one: a step may be longer than the time between two looks.
        """
        looks, look = self._looks, _Look(now, batches, samples, starved_s)
        if looks and (batches < looks[-1].batches or starved_s < looks[-1].starved_s):
            looks.clear()  # another loop counts from 0
        if not samples or (looks and samples <= looks[-1].samples):
            return  # what came before the first batch was no work
        if len(looks) > 1:
            gap_s = (looks[-1].at - looks[0].at) / (len(looks) - 1)
            own_s = now - looks[-1].at - (starved_s - looks[-1].starved_s)
            if own_s > max(PAUSE_S, PAUSE_GAPS * gap_s):
                looks.clear()
        looks.append(look)
        while len(looks) > LEAST_LOOKS and self._is_enough(looks[1], look):
            looks.popleft()
        if len(looks) < LEAST_LOOKS:
            return
        first = looks[0]
        elapsed_s = now - first.at
        waited_s = min(starved_s - first.starved_s, (1 - LEAST_WORK) * elapsed_s)
        self.value = (samples - first.samples) / (elapsed_s - waited_s)
        self.starved = waited_s / elapsed_s

    @staticmethod
    def _is_enough(first: _Look, last: _Look) -> bool:
        lasted_s = last.at - first.at
        many = last.batches - first.batches >= WINDOW_BATCHES or lasted_s >= LONGEST_WINDOW_S
        return lasted_s >= WINDOW_S and many


class Backlog(NamedTuple):
    """The open batches, and what teacher groups have to do with them.

    Attributes:
        batches, samples: of them all.
        wanted: by group, samples of them that are, or were, its to label.
        lacking: by group and batch, those that it has not labelled yet.
    """

    batches: int
    samples: int
    wanted: Mapping[str, int]
    lacking: Mapping[str, Counter[int]]


class Needs:
    """The needs of one student. Owned by the I/O thread."""

    def __init__(self, teachers: Sequence[str]) -> None:
        self._hunger = Hunger()
        # Of all samples, those that each group labels: not all, where some samples go to another teacher.
        self._shares: dict[str, float | None] = dict.fromkeys(teachers)

    @property
    def starved(self) -> float | None:
        """Share of the time in which the hunger was measured that the loop waited for labels."""
        return self._hunger.starved

    def told(
        self,
        now: float,
        stats: Mapping[str, Scalar],
        backlog: Backlog,
        oldest: Callable[[str], int] = lambda group: 0,
    ) -> list[Need]:
        """What to tell the coordinator, by the loop's figures and the open batches.

        Args:
            oldest: the oldest version of a group that is taken; 0: any.
        """
        counts = [stats.get(name) for name in ("batches", "samples", "starved_s")]
        if all(isinstance(count, int | float) for count in counts):
            self._hunger.see(now, *counts)  # type: ignore[arg-type]
        needs = []
        for group in self._shares:
            hunger, share = self._hunger.value, self._share(group, backlog)
            share = share if share >= LEAST_SHARE else 0.0
            lacking = backlog.lacking[group]
            need = Need(
                group=group,
                hunger=None if hunger is None else hunger * share,
                lacking=lacking.total(),
                buffered=backlog.batches - len(lacking),
                oldest=oldest(group),
            )
            needs.append(need)
        return needs

    def _share(self, group: str, backlog: Backlog) -> float:
        known = self._shares[group]
        if backlog.samples:
            share = backlog.wanted[group] / backlog.samples
            known = share if known is None else known + SHARE_SMOOTHING * (share - known)
            self._shares[group] = known
        return 1.0 if known is None else known
