"""How many workers every teacher group should have. Pure: what members say and the time in, decisions out.

::

                    a fresh coordinator
                            |
        unknown --everyone had time to register--> automatic <--auto--+
                            |                          |              |
                            |                          +--a number--> held
                            +--(no range: a number)--> fixed --a number--> held --auto--> fixed

While *automatic*, a policy's advice (``policies``) to have more is followed at once, and advice to have fewer
when it was given without a break for ``down_after_s``: then the highest of these numbers is right. That time
is what a worker of this group took to start last: to let one go that is needed again costs as much as to keep
it
for so long, so whatever comes, no more than twice the least is paid (the ski-rental bound). *Held* is what a
person asked for, until they ask for ``auto``.

Nothing here survives a restart. A fresh coordinator begins with the workers that it finds, so that a restart
ends none; whoever starts it names the bounds, and whoever acts on ``wanted`` repeats what a person asked for.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from edldist.bounds import MOST_WORKERS
from edldist.coordinator.scaling.load import GroupLoad
from edldist.coordinator.scaling.policies import POLICIES, Policy
from edldist.errors import ConfigError

__all__ = ["Bounds", "Change", "Rules", "Scaling", "Standing"]

_NOBODY = GroupLoad()


@dataclass(frozen=True)
class Bounds:
    """Between which numbers the workers of a group may be.

    Attributes:
        least, most: what ``wanted`` may be.
        initial: the number to begin with.
        automatic: whether a policy decides; else ``initial`` holds unless a person asks for another number.
    """

    least: int
    most: int
    initial: int
    automatic: bool

    @classmethod
    def parse(cls, text: str) -> Bounds:
        """``1:8`` for a range that the coordinator decides in, ``1:8:5`` to begin with 5, ``2`` for a number.

        Raises:
            ConfigError: the text has another form, or its bounds make no sense.
        """
        match = re.fullmatch(r"(\d{1,6})(?::(\d{1,6})(?::(\d{1,6}))?)?", text, re.ASCII)
        if match is None:
            raise ConfigError(
                f"{text!r}: write a number of workers, as in 2, or a range, as in 1:8 (1:8:5 begins with 5)"
            )
        least, most = int(match[1]), int(match[2] or match[1])
        if not (least <= most <= MOST_WORKERS and (most or not match[2])):
            raise ConfigError(
                f"{text!r}: the bounds must satisfy 0 <= MIN <= MAX <= {MOST_WORKERS}, MAX >= 1"
            )
        if match[2] is None:
            return cls(0, MOST_WORKERS, least, automatic=False)
        initial = int(match[3] or max(1, least))
        if not max(1, least) <= initial <= most:
            raise ConfigError(f"{text!r}: the number to begin with is not within {max(1, least)} and {most}")
        return cls(least, most, initial, automatic=True)


@dataclass(frozen=True)
class Rules:
    """How the coordinator decides.

    Attributes:
        policy: a name of ``POLICIES``.
        decide_every_s: how often.
        down_after_s: for how long fewer workers must be enough before some leave, while no worker has shown
            how long it takes to start.
        least_down_s, most_down_s: bounds of that time, when one has.
        slowest_leave: whether whoever acts on ``wanted`` has workers leave in the coordinator's order.
    """

    policy: str = "demand"
    decide_every_s: float = 5.0
    down_after_s: float = 60.0
    least_down_s: float = 30.0
    most_down_s: float = 300.0
    slowest_leave: bool = True


class Standing(NamedTuple):
    """What is wanted of a group now; see ``GroupStatus``."""

    wanted: int | None
    bounds: Bounds
    held: int | None
    why: str


class Change(NamedTuple):
    """A group that should have another number of workers than before."""

    group: str
    before: int | None
    wanted: int
    why: str


class Scaling:
    """The wanted number of every group that has bounds. Owned by the coordinator's main thread.

    Args:
        bounds: by group; nothing is decided of others.
        rules: how to decide.
    """

    def __init__(self, bounds: Mapping[str, Bounds], rules: Rules | None = None) -> None:
        self._rules = rules or Rules()
        self._groups = {group: _Group(each, self._rules) for group, each in bounds.items()}
        self.due_at = float("-inf")
        """Monotonic seconds from which on to ``decide``; infinite where there is nothing to decide."""
        if not bounds:
            self.due_at = float("inf")

    @property
    def groups(self) -> Collection[str]:
        """Those that have bounds."""
        return self._groups.keys()

    def __getitem__(self, group: str) -> Standing | None:
        """What is wanted of a group; None if it has no bounds."""
        known = self._groups.get(group)
        return None if known is None else Standing(known.wanted, known.bounds, known.held, known.why)

    def wanted(self, group: str) -> int | None:
        """How many workers of a group there should be; None if it has no bounds, or nobody can tell."""
        known = self._groups.get(group)
        return None if known is None else known.wanted

    def decide(self, loads: Mapping[str, GroupLoad], now: float) -> list[Change]:
        """Decide anew, and tell what is new. To be called when everyone who is here had time to say so."""
        if self._groups:
            self.due_at = now + self._rules.decide_every_s
        changes = []
        for name, group in self._groups.items():
            before = group.wanted
            group.decide(loads.get(name, _NOBODY), now)
            if group.wanted is not None and group.wanted != before:
                changes.append(Change(name, before, group.wanted, group.why))
        return changes

    def hold(self, group: str, workers: int | None, now: float) -> Change | None:
        """A person asks for a number of workers, or (None) for what the coordinator decides.

        Returns:
            The change, if it is one.

        Raises:
            ConfigError: there is no such group, or the number is not within its bounds.
        """
        known = self._groups.get(group)
        if known is None:
            names = ", ".join(sorted(self._groups)) or "none"
            raise ConfigError(
                f"no teacher group {group!r} can be scaled here; there are: {names}. They are named when the "
                "coordinator is started (--scale NAME=MIN:MAX), as edldist run and edldist submit do"
            )
        bounds = known.bounds
        if workers is not None and not bounds.least <= workers <= bounds.most:
            raise ConfigError(
                f"teacher {group!r} has from {bounds.least} to {bounds.most} workers; {workers} are not "
                "within these bounds. Change the job's replicas to allow it"
            )
        before = known.wanted
        known.hold(workers, now)
        if known.wanted is None or known.wanted == before:
            return None
        return Change(group, before, known.wanted, known.why)

    def validate(self) -> None:
        """Check what holds between any two calls, for tests."""
        for group in self._groups.values():
            group.validate()


class _Group:
    """One teacher group."""

    def __init__(self, bounds: Bounds, rules: Rules) -> None:
        self.bounds = bounds
        self.why = "the coordinator has just started"
        # Invariant: within the bounds; equal to held unless that is None, and to bounds.initial where nothing
        # is automatic and nothing held.
        self.wanted: int | None = None
        self.held: int | None = None
        self._rules = rules
        self._policy: Policy = POLICIES[rules.policy](rules.slowest_leave)
        self._down_after_s = rules.down_after_s
        # Invariant: in the order of time; none is above wanted unless a number is held.
        self._advised: deque[tuple[float, int]] = deque()
        self._raised_at: float | None = None  # and nobody has come since
        self._here = 0  # workers at the last decision

    def decide(self, load: GroupLoad, now: float) -> None:
        here = len(load.workers)
        self._time_starts(here, now)
        if self.held is not None:
            return
        if not self.bounds.automatic:
            self._want(self.bounds.initial, "the job asks for that many", now)
            return
        if self.wanted is None:
            first = self._within(max(self.bounds.initial, here))
            self._want(first, "so many are to begin with, or were here", now)
            self._advised.append((now, first))
            return
        standing = self.wanted
        advice = self._policy.advise(load, standing, now)
        self._advised.append((now, self._within(advice.workers)))
        while self._advised[0][0] <= now - self._down_after_s:
            self._advised.popleft()
        workers = max(number for _, number in self._advised)
        if workers == standing:
            return
        why = advice.why
        if workers < standing:  # for so long, which the latest reason need not have held
            why += f"; so many were enough for {self._down_after_s:.0f} s"
        self._want(workers, why, now)

    def hold(self, workers: int | None, now: float) -> None:
        self.held = workers
        if workers is not None:
            self._want(workers, "a person asked for that many", now)
        elif not self.bounds.automatic:
            self._want(self.bounds.initial, "the job asks for that many", now)
        elif self.wanted is not None:
            self._advised.clear()
            self._advised.append((now, self.wanted))
            self.why = "a person asked for that many, and lets the coordinator decide now"

    def validate(self) -> None:
        assert self.held is None or self.wanted == self.held
        if self.wanted is None:
            return
        assert self.bounds.least <= self.wanted <= self.bounds.most, f"{self.wanted} is out of bounds"
        if self.held is None and not self.bounds.automatic:
            assert self.wanted == self.bounds.initial
        times = [at for at, _ in self._advised]
        assert times == sorted(times)
        if self.held is None and self.bounds.automatic:
            assert max(number for _, number in self._advised) == self.wanted, "advice is not followed"

    def _within(self, workers: int) -> int:
        return min(max(workers, self.bounds.least), self.bounds.most)

    def _want(self, workers: int, why: str, now: float) -> None:
        if self.wanted is not None and workers > self.wanted:
            self._raised_at = now
        self.wanted, self.why = workers, why

    def _time_starts(self, here: int, now: float) -> None:
        """Learn how long a worker takes to start from the first one that comes after more were asked for."""
        if self._raised_at is not None and here > self._here:
            took_s = now - self._raised_at
            self._down_after_s = min(max(took_s, self._rules.least_down_s), self._rules.most_down_s)
            self._raised_at = None
        self._here = here
