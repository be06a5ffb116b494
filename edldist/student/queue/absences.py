"""Which teacher groups have been without a worker for so long that batches go on without them. Pure.

::

    here --no worker any more--> lately gone --patience is over--> missing
      ^                              |                                |
      +---------- a worker ----------+--------------------------------+

Every group begins as lately gone. Only time in which somebody looked counts: a process that stands still does
not hear who comes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

__all__ = ["Absences", "Change"]

MOST_BETWEEN_LOOKS_S = 1.0
"""Of a longer time between two looks no more than this counts."""


class Change(NamedTuple):
    """What a look has found.

    Attributes:
        missing: groups that are missing from now on, each with for how long it has been gone.
        back: groups that were missing, and have a worker again, each with for how long it was gone.
    """

    missing: dict[str, float]
    back: dict[str, float]


class Absences:
    """Counts for how long groups have been without a worker. Owned by the student's I/O thread.

    Args:
        patience_s: of the groups without which batches may go on, by name.
        now: monotonic seconds.
    """

    def __init__(self, patience_s: Mapping[str, float], now: float) -> None:
        self._patience_s = patience_s
        self._gone_s = dict.fromkeys(patience_s, 0.0)  # of those that have no worker
        self._looked = now
        self.missing: frozenset[str] = frozenset()

    def look(self, now: float, here: Collection[str]) -> Change:
        """Let time pass.

        Args:
            here: the groups that have a worker.
        """
        passed_s = min(now - self._looked, MOST_BETWEEN_LOOKS_S)
        self._looked = now
        back: dict[str, float] = {}
        for group in self._patience_s:
            if group not in here:
                self._gone_s[group] = self._gone_s.get(group, -passed_s) + passed_s
            elif (gone_s := self._gone_s.pop(group, None)) is not None and group in self.missing:
                back[group] = gone_s
        missing = {g: gone_s for g, gone_s in self._gone_s.items() if gone_s >= self._patience_s[g]}
        new = {group: gone_s for group, gone_s in missing.items() if group not in self.missing}
        self.missing = frozenset(missing)
        return Change(new, back)
