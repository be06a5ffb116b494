"""A run in virtual time: what students take, and what workers do, with some settings. Pure.

The rules are not copied: a rank has the ``LabelQueue`` of real ones, and a worker the ``Demand``. Around them
is what a job is otherwise made of, as events on a virtual clock::

    loop: asks -> reads while the queue wants batches -> waits for the head -> its own time -> asks ...
    worker: pulls -- trip --> student leases -- trip --> receive (I/O thread) -> waits -> a pass (compute
            thread) -> send (I/O thread), with the next pulls -- trip --> labels in their places ...

What it takes for granted: a message travels for ``trip_s``, half of that more or less, whatever is in it;
workers do not slow each other down; nobody dies, and no task is done twice; a row costs what any other does.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from edldist.student.queue.flow import Flow
from edldist.student.queue.outcomes import Grant
from edldist.student.queue.queue import LabelQueue
from edldist.teacher.service.demand import Demand
from edldist_launch.planner.pace import COMPUTE, WorkerPace, stations
from edldist_launch.planner.setting import Loop, Setting

__all__ = ["TRIP_S", "Replayed", "replay"]

GROUP = "teacher"
WARM_UP = 0.25
"""Share of the batches that pass before anything counts: the first ones are read into an empty queue."""
LEAST_BATCHES, ENOUGH_BATCHES, MOST_BATCHES = 30, 120, 960
ENOUGH_PASSES = 2000
NOTIFY_S = 0.0001
"""Until a thread that waits for another one runs: who pulls with its answer is told before the loop reads."""
TRIP_S = 0.0005
TURNS = 16
"""So often each worker's turn comes round at least, where the most batches allow it."""


@dataclass(frozen=True)
class Replayed:
    """What came of a setting.

    Attributes:
        samples_per_s: that all ranks took.
        efficiency: that, as a share of what they take when they never wait.
        starved: share of the time in which the first rank waited for labels.
        wait_p95_s: how long 95% of its batches were waited for at most.
        task_p50_s, task_p95_s: how long half of the tasks, and 95%, were in their worker at most: from their
            arrival until their labels leave.
        row_p95_s: the same of the first task of each message: of those stage rows tell.
        busy: share of the time in which the workers of each type computed.
    """

    samples_per_s: float
    efficiency: float
    starved: float
    wait_p95_s: float
    task_p50_s: float
    task_p95_s: float
    row_p95_s: float
    busy: Mapping[str, float]


def replay(
    setting: Setting,
    loop: Loop,
    paces: Mapping[str, WorkerPace],
    trip_s: float = TRIP_S,
    seed: int = 0,
    batches: int | None = None,
) -> Replayed:
    """Let a job run with a setting, for some hundred batches.

    Args:
        setting: of the job; at least one worker.
        loop: the student.
        paces: of every type of device in the setting.
        trip_s: how long a message travels on average.
        seed: of the spread of passes and of travels. The same one gives the same figures.
        batches: of each rank; None for as many as it takes.
    """
    return _World(setting, loop, paces, trip_s, seed, batches).run()


Event = Callable[[float], None]


class _World:
    def __init__(
        self,
        setting: Setting,
        loop: Loop,
        paces: Mapping[str, WorkerPace],
        trip_s: float,
        seed: int,
        batches: int | None,
    ) -> None:
        self.trip_s = trip_s
        self.loop = loop
        self._events: list[tuple[float, int, Event]] = []
        self._order = itertools.count()
        self._last_at: dict[tuple[str, str], float] = {}
        passes = loop.ranks * loop.batch_rows / setting.batch_size  # of a batch of all ranks
        enough = max(LEAST_BATCHES, min(ENOUGH_BATCHES, ENOUGH_PASSES / passes))
        self.batches = batches or round(min(max(enough, TURNS * setting.workers / passes), MOST_BATCHES))
        self.warm_up = round(WARM_UP * self.batches)
        self.began = 0.0
        self.latencies_s: list[float] = []
        self.rows_s: list[float] = []
        self.rng = random.Random(seed)
        flow = Flow(low_watermark=setting.low, high_watermark=setting.high_watermark)
        self.ranks = [_Rank(f"rank{number}", self, flow) for number in range(loop.ranks)]
        self.workers = [
            _Worker(f"{device}-{number}", self, paces[device], setting.batch_size)
            for device, count in setting.counts
            for number in range(count)
        ]
        self.named = {worker.name: worker for worker in self.workers}
        self._counts = setting.counts
        for rank in self.ranks:
            for worker in self.workers:
                rank.queue.join(worker.name, GROUP)

    def at(self, when: float, event: Event) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def send(self, now: float, link: tuple[str, str], event: Event) -> None:
        """Once a message has travelled; those of a link, from whom to whom, stay in their order."""
        there_at = now + self.trip_s * (0.5 + self.rng.random())
        there_at = self._last_at[link] = max(there_at, self._last_at.get(link, 0.0))
        self.at(there_at, event)

    def run(self) -> Replayed:
        for rank in self.ranks:
            rank.ask(0.0)
        for worker in self.workers:
            worker.pull(0.0)
        first, now = self.ranks[0], 0.0
        while first.taken < self.batches:
            now, _, event = heapq.heappop(self._events)
            event(now)
        elapsed_s = now - self.began
        taken = self.loop.ranks * self.loop.batch_samples * (self.batches - self.warm_up)
        latencies = self.latencies_s or [0.0]
        busy: dict[str, float] = {}
        for device, count in self._counts:
            those = [worker.busy_s for worker in self.workers if worker.pace.device == device]
            busy[device] = min(1.0, sum(those) / (count * elapsed_s))
        rate = taken / elapsed_s
        return Replayed(
            samples_per_s=rate,
            efficiency=min(1.0, rate / self.loop.samples_per_s),
            starved=min(1.0, sum(first.waits_s) / elapsed_s),
            wait_p95_s=_quantile(first.waits_s, 0.95),
            task_p50_s=_quantile(latencies, 0.5),
            task_p95_s=_quantile(latencies, 0.95),
            row_p95_s=_quantile(self.rows_s or latencies, 0.95),
            busy=busy,
        )

    def warm(self, now: float) -> None:
        """From now on it counts."""
        self.began = now
        self.latencies_s.clear()
        self.rows_s.clear()
        for rank in self.ranks:
            rank.waits_s.clear()
        for worker in self.workers:
            worker.busy_s = 0.0

    def stepped(self, now: float) -> None:
        """A rank has its batch: once all have theirs, they take their step together."""
        if all(rank.holds for rank in self.ranks):
            if self.ranks[0].taken == self.warm_up:
                self.warm(now)
            for rank in self.ranks:
                rank.holds = False
                self.at(now + self.loop.own_s - self.loop.read_s, rank.ask)


class _Rank:
    """A training loop and its queue."""

    def __init__(self, name: str, world: _World, flow: Flow) -> None:
        self.name = name
        self.queue = LabelQueue([GROUP], flow)
        self.holds = False
        self.taken = 0
        self.waits_s: list[float] = []
        self._world = world
        self._asked_at: float | None = None
        self._reads = False
        self._read_s = 0.0  # since it asked
        self._grown: set[int] = set()

    def ask(self, now: float) -> None:
        self._asked_at, self._read_s = now, 0.0
        self._look(now)

    def pulled(self, worker: _Worker, seq: int, room: int, now: float) -> None:
        grants = self.queue.lease(worker.name, room, now)
        buffered = self.queue.deliverable_batches
        if grants:
            event = partial(worker.arrived, self, seq, grants, buffered)
        else:
            event = partial(worker.idled, self, seq, buffered)
        self._world.send(now, (self.name, worker.name), event)
        self._turned(now)

    def labelled(self, grants: Sequence[Grant], now: float) -> None:
        for grant in grants:
            if grant.batch not in self._grown:
                self._grown.add(grant.batch)
                self.queue.grow(grant.batch, self._world.loop.batch_rows)
            self.queue.complete(grant.lease, now)
        self._turned(now)

    def _look(self, now: float) -> None:
        """The loop's thread reads, and then takes; it does so inside of its ``next`` alone."""
        if self._asked_at is None or self._reads:
            return
        if self.queue.wants_batch():
            self._reads = True
            self._world.at(now + self._world.loop.read_s, self._read)
        elif self.queue.ready():
            self._grown.discard(self.queue.deliver())
            self.waits_s.append(max(0.0, now - self._asked_at - self._read_s))
            self._asked_at = None
            self.holds = True
            self.taken += 1
            self._world.stepped(now)

    def _read(self, now: float) -> None:
        self._reads = False
        self._read_s += self._world.loop.read_s
        self.queue.offer(self._world.loop.batch_rows, 1)
        self._rouse(now)
        self._look(now)

    def _turned(self, now: float) -> None:
        """The I/O thread has dealt with a message; a loop that waits hears of it a little later."""
        self.queue.wants_batch()  # what it says depends on what it said: real ones are asked here, too
        self._rouse(now)
        if self._asked_at is not None:
            self._world.at(now + NOTIFY_S, self._look)

    def _rouse(self, now: float) -> None:
        queue, world = self.queue, self._world
        if queue.sleepers:
            buffered = queue.deliverable_batches
            for name in queue.rouse(GROUP, now, len(world.workers)):
                world.send(now, (self.name, name), partial(world.named[name].woken, self, buffered))


@dataclass(frozen=True)
class _Held:
    rank: _Rank
    grant: Grant
    arrived_at: float
    is_first: bool


class _Worker:
    """A compute thread and an I/O thread, each busy with one thing at a time."""

    def __init__(self, name: str, world: _World, pace: WorkerPace, batch_size: int) -> None:
        self.name = name
        self.pace = pace
        self.busy_s = 0.0
        self._world = world
        self._batch_size = batch_size
        self._demand = Demand(batch_size)
        for rank in world.ranks:
            self._demand.connected(rank.name)
        self._waiting: deque[_Held] = deque()
        self._stations = stations(overlaps=pace.overlaps)
        self._free_at = [0.0] * len(self._stations)
        self._depth = 2 if pace.overlaps else 1
        self._flying = 0
        self._talks_until = 0.0

    def pull(self, now: float) -> None:
        ranks = {rank.name: rank for rank in self._world.ranks}
        while (order := self._demand.next_pull()) is not None:
            rank = ranks[order.student]
            event = partial(rank.pulled, self, order.seq, order.room)
            self._world.send(now, (self.name, rank.name), event)

    def idled(self, rank: _Rank, seq: int, buffered: int, now: float) -> None:
        self._demand.idled(rank.name, seq, buffered)
        self.pull(now)

    def woken(self, rank: _Rank, buffered: int, now: float) -> None:
        self._demand.woken(rank.name, buffered)
        self.pull(now)

    def arrived(self, rank: _Rank, seq: int, grants: Sequence[Grant], buffered: int, now: float) -> None:
        cost = sum(grant.cost for grant in grants)
        there_at = self._talk(now, self.pace.takes(cost, "receive"))
        held = [_Held(rank, grant, now, grant is grants[0]) for grant in grants]
        self._world.at(there_at, partial(self._accepted, rank, seq, held, buffered))

    def _accepted(self, rank: _Rank, seq: int, held: Sequence[_Held], buffered: int, now: float) -> None:
        self._demand.granted(rank.name, seq, sum(each.grant.cost for each in held), buffered)
        self._waiting.extend(held)
        self._begin(now)
        self.pull(now)

    def _talk(self, now: float, seconds: float) -> float:
        """The I/O thread is busy for so long as soon as it can be; until when."""
        self._talks_until = max(now, self._talks_until) + seconds
        return self._talks_until

    def _begin(self, now: float) -> None:
        while self._flying < self._depth and self._waiting:
            tasks = self._take()
            size = sum(task.grant.cost for task in tasks)
            spread = self.pace.spread[self._world.rng.randrange(len(self.pace.spread))]
            until = now
            for number, station in enumerate(self._stations):
                took_s = spread * self.pace.takes(size, *station)
                until = self._free_at[number] = max(until, self._free_at[number]) + took_s
            self.busy_s += max(spread * self.pace.takes(size, *station) for station in self._stations)
            self._flying += 1
            self._world.at(until, partial(self._landed, tasks))

    def _take(self) -> list[_Held]:
        """The tasks of a pass, as ``Batcher`` takes them."""
        room = self._batch_size
        taken: list[_Held] = []
        later: deque[_Held] = deque()
        for task in self._waiting:
            if not taken or task.grant.cost <= room:
                taken.append(task)
                room -= task.grant.cost
            else:
                later.append(task)
        self._waiting = later
        return taken

    def _landed(self, tasks: Sequence[_Held], now: float) -> None:
        self._flying -= 1
        size = sum(task.grant.cost for task in tasks)
        sent_at = self._talk(now, self.pace.takes(size, "send"))
        self._world.at(sent_at, partial(self._sent, tasks, size))
        self._begin(now)

    def _sent(self, tasks: Sequence[_Held], size: int, now: float) -> None:
        by_rank: dict[str, list[_Held]] = {}
        for task in tasks:
            by_rank.setdefault(task.rank.name, []).append(task)
            self._world.latencies_s.append(now - task.arrived_at)
            if task.is_first:
                self._world.rows_s.append(now - task.arrived_at)
        compute_s = self.pace.takes(size, *COMPUTE)
        for name, those in by_rank.items():
            cost = sum(task.grant.cost for task in those)
            self._demand.finished(name, cost)
            self._demand.paced(cost, compute_s, round(cost * self.pace.row_bytes))
            grants = [task.grant for task in those]
            self._world.send(now, (self.name, name), partial(those[0].rank.labelled, grants))
        self.pull(now)


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else 0.0
