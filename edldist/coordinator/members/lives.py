"""What the metrics need of members that are gone, or were here before under another name. Pure.

A counter that is asked for every fifteen seconds would lose what a member did in its last ones, so who left
stays on the page for a while with its last figures. How long stages took is added up over all members of a
group, those that are gone included, since a sum over those that are here would shrink.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edldist.wire.messages import Register, Scalar, StageTimes

__all__ = ["Lives", "StageTotals", "group_of"]

KEPT_S = 300.0
"""How long who left is told of: as long as Prometheus takes an old figure for a present one."""
MOST_KEPT = 256
MOST_RANKS = 10_000
_NOTHING = StageTimes(stage="", sum_s=0.0, counts=[])


class StageTotals:
    """Sums of stages over many members, by role, group and stage."""

    def __init__(self) -> None:
        # By role, group and stage: of durations, and of waits before them.
        self._sums: dict[tuple[str, str, str], tuple[float, list[int], float, list[int]]] = {}

    def add(
        self, role: str, group: str, stages: Iterable[StageTimes], since: Sequence[StageTimes] = ()
    ) -> None:
        """A member's stages, without what it had done when it came here."""
        before = {each.stage: each for each in since}
        for each in stages:
            key = role, group, each.stage
            sum_s, counts, waited_s, waits = self._sums.get(key, (0.0, [], 0.0, []))
            then = before.get(each.stage, _NOTHING)
            self._sums[key] = (
                sum_s + each.sum_s - min(then.sum_s, each.sum_s),
                _sum(counts, _less(each.counts, then.counts)),
                waited_s + each.waited_s - min(then.waited_s, each.waited_s),
                _sum(waits, _less(each.waits, then.waits)),
            )

    def copy(self) -> StageTotals:
        copied = StageTotals()
        copied._sums = dict(self._sums)
        return copied

    def told(self) -> list[dict[str, Any]]:
        """As the status page has them."""
        return [
            {"role": role, "group": group, "stage": stage, "sum_s": sum_s, "counts": counts}
            | {"waited_s": waited_s, "waits": waits}
            for (role, group, stage), (sum_s, counts, waited_s, waits) in sorted(self._sums.items())
        ]


@dataclass
class _Gone:
    register: Register
    stats: Mapping[str, Scalar]
    at: float


class Lives:
    """Who left lately, what all who ever left have done, and who was started again.

    Owned by the coordinator's main thread. It begins anew with the coordinator.
    """

    def __init__(self) -> None:
        # Invariant: who left first comes first.
        self._gone: OrderedDict[str, _Gone] = OrderedDict()
        self.stages = StageTotals()
        """Of all who left."""
        # By job and rank: how many processes were seen after the first, and the last one of them.
        self._ranks: dict[tuple[str, Scalar], tuple[int, str]] = {}
        self._workers_again = 0

    def joined(self, register: Register, rejoins: bool) -> None:
        """A member came that was not here.

        Args:
            rejoins: whether it was a member before, of this coordinator or of another one.
        """
        self._gone.pop(register.id, None)
        if register.role == "teacher":
            self._workers_again += register.attempt > 0 and not rejoins
            return
        key = register.job, register.info.get("rank")
        times, last = self._ranks.get(key, (-1, ""))
        if last != register.process and (key in self._ranks or len(self._ranks) < MOST_RANKS):
            self._ranks[key] = times + 1, register.process

    def left(
        self,
        register: Register,
        stats: Mapping[str, Scalar],
        stages: Sequence[StageTimes],
        since: Sequence[StageTimes],
        at: float,
    ) -> None:
        """A member is gone, and was heard last at ``at`` (monotonic seconds)."""
        self.stages.add(register.role, group_of(register), stages, since)
        self._gone[register.id] = _Gone(register, stats, at)
        if len(self._gone) > MOST_KEPT:
            self._gone.popitem(last=False)

    def gone(self, now: float) -> list[dict[str, Any]]:
        """Who left in the last minutes, as the status page has members."""
        while self._gone and now - next(iter(self._gone.values())).at > KEPT_S:
            self._gone.popitem(last=False)
        return [
            {"id": each, "role": gone.register.role, "group": gone.register.group, "job": gone.register.job}
            | {"stats": dict(gone.stats), "ago_s": now - gone.at}
            for each, gone in self._gone.items()
        ]

    def restarts(self) -> dict[str, int]:
        """By role: workers that took the place of an earlier one; how often the students were begun anew.

        The latter is that of the rank of which there were most processes, as in ``result.json``.
        """
        students = max((times for times, _ in self._ranks.values()), default=0)
        return {"teacher": self._workers_again, "student": students}


def group_of(register: Register) -> str:
    """Of whom its stages are added up: the teacher group, or the job."""
    return register.group if register.role == "teacher" else register.job


def _sum(one: Sequence[int], other: Sequence[int]) -> list[int]:
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    return [value + (shorter[at] if at < len(shorter) else 0) for at, value in enumerate(longer)]


def _less(counts: Sequence[int], before: Sequence[int]) -> list[int]:
    return [max(0, value - (before[at] if at < len(before) else 0)) for at, value in enumerate(counts)]
