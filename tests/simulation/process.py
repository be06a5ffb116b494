"""Processes that live and die on simulated hosts, and what in them has turns."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation.schedule import ProcessClock

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Actor", "Process"]

_LEAST_PAUSE_S = 0.0002


class Actor:
    """One thread of a process: its turn is called when it is due, or when it is rung, a moment later.

    Args:
        turn: told the process's own time; returns when it wants to be called next.
        reads: whether it is the thread that reads what comes.
    """

    def __init__(
        self, process: Process, name: str, turn: Callable[[float], float], reads: bool = False
    ) -> None:
        self._reads = reads
        self._process = process
        self._turn = turn
        self._schedule = process.world.schedule
        self._next_at = math.inf
        self.name = name

    def ring(self) -> None:
        """Have the turn called soon, which is any time within some milliseconds."""
        self.want(self._schedule.now + self._process.lag_s())

    def want(self, when: float) -> None:
        if when < self._next_at:
            self._next_at = when
            self._schedule.at(when, lambda: self._fire(when))

    def _fire(self, when: float) -> None:
        process = self._process
        if when != self._next_at or not process.alive:
            return
        self._next_at = math.inf
        if process.frozen:
            process.missed.add(self)
            return
        clock = process.clock
        now = clock.monotonic()
        process.world.acts(process, self.name)
        if self._reads:
            process.transport.wait()
        try:
            due = self._turn(now)
        except Exception as error:  # a thread ends; what that means is the process's
            process.failed(self.name, error)
            return
        process.world.acted(process)
        if self._reads and process.transport.pending:
            due = now
        if process.alive and due < math.inf:
            pause_s = max(due - now, _LEAST_PAUSE_S)
            self.want(self._schedule.now + pause_s + process.lag_s())


class Process:
    """A process on a host of its own.

    Attributes:
        transport: its end of the network.
        reader: its thread that reads what comes, once there is one.
        frozen: it stands still; its turns come when it thaws.
        missed: actors whose turns came while it stood still, in the order in which they did.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.chance = random.Random(f"{world.seed}/{name}")
        self.clock = ProcessClock(world.schedule, self.chance.uniform(0, 1e6), self.chance.uniform(-2, 2))
        self.transport = world.network.transport(name, self.ring)
        self.reader: Actor | None = None
        self.alive = True
        self.frozen = False
        self.lag_most_s = 0.003
        self.missed: _Ordered = _Ordered()
        self.hurt = False
        """Whether a fault ever touched it, so that others may have taken it for dead."""

    def ring(self) -> None:
        """Something has come, or somebody woke the poller."""
        if self.reader is not None:
            self.reader.ring()

    def lag_s(self) -> float:
        """How late a thread is called: the machine has other things to do."""
        return self.chance.random() * self.lag_most_s

    def freeze(self) -> None:
        self.frozen = True
        self.hurt = True
        self.world.network.stop(self.name)

    def thaw(self) -> None:
        if self.frozen:
            self.frozen = False
            self.world.network.go_on(self.name)
            for actor in self.missed.take():
                actor.ring()

    def kill(self) -> None:
        """End at once, without a word."""
        self.alive = False
        self.hurt = True
        self.world.network.kill(self.name)
        self.world.network.go_on(self.name)

    def failed(self, actor: str, error: Exception) -> None:
        """A thread raised."""
        raise NotImplementedError


class _Ordered:
    """A set that keeps its order."""

    def __init__(self) -> None:
        self._actors: dict[Actor, None] = {}

    def add(self, actor: Actor) -> None:
        self._actors[actor] = None

    def take(self) -> list[Actor]:
        actors, self._actors = list(self._actors), {}
        return actors
