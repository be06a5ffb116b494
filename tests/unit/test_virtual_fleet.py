"""Three jobs of weights 2, 1 and 1 ask twice what a fleet gives, in virtual time: real pulls, real queues.

Workers are their ``Demand``, ranks their ``LabelQueue``; messages take some time, passes and steps theirs.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import pytest

from edldist.student.queue.flow import Flow
from edldist.student.queue.outcomes import Grant
from edldist.student.queue.queue import LabelQueue
from edldist.teacher.service.demand import Demand, PullOrder
from edldist.wire.messages import JobShare

BATCH, TASK, PASS_S, TRAVEL_S = 20, 16, 0.04, 0.002


class _Rank(NamedTuple):
    job: str
    queue: LabelQueue
    step_s: float


class Fleet:
    """Runs events in the order of their times."""

    def __init__(self, workers: int, seed: int) -> None:
        self.now = 0.0
        self.taken: Counter[str] = Counter()
        self.batches: Counter[str] = Counter()
        self._chance = random.Random(seed)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._ranks: dict[str, _Rank] = {}
        self._steps: dict[str, bool] = {}
        self._demands = {f"w{n}": Demand(TASK) for n in range(workers)}
        self._held: dict[str, list[tuple[str, Grant]]] = {name: [] for name in self._demands}
        self._computes: set[str] = set()

    def rank(self, name: str, share: JobShare, step_s: float, low_watermark: int = 2) -> None:
        queue = LabelQueue(["t"], Flow(low_watermark=low_watermark, high_watermark=8), first_lease=1)
        self._ranks[name] = _Rank(share.job, queue, step_s)
        for worker, demand in self._demands.items():
            queue.join(worker, "t")
            demand.connected(name, share)
        self._later(0.0, lambda: self._loop(name))

    def kill(self, job: str) -> None:
        """All ranks of a job are gone, and workers know it."""
        for name in [name for name, rank in self._ranks.items() if rank.job == job]:
            del self._ranks[name]
            for worker, demand in self._demands.items():
                self._held[worker] = [held for held in self._held[worker] if held[0] != name]
                demand.disconnected(name)

    def run(self, seconds: float) -> Counter[str]:
        """Samples that each job's loops have taken in that time."""
        before, until = self.taken.copy(), self.now + seconds
        for worker in self._demands:
            self._later(0.0, lambda worker=worker: self._work(worker))
        while self._events and self._events[0][0] <= until:
            self.now, _, happens = heapq.heappop(self._events)
            happens()
        self.now = until
        return self.taken - before

    def _later(self, seconds: float, happens: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._number), happens))

    def _travel(self) -> float:
        return TRAVEL_S * self._chance.uniform(0.5, 1.5)

    def _loop(self, name: str) -> None:
        """Read ahead, and take a batch if there is one."""
        if (rank := self._ranks.get(name)) is None:
            return
        while rank.queue.wants_batch():
            rank.queue.offer(BATCH, BATCH)
        for worker in rank.queue.rouse("t", self.now, 1 << 30):
            self._later(self._travel(), lambda worker=worker: self._woken(worker, name))
        if rank.queue.ready() and not self._steps.get(name):
            number = rank.queue.deliver()
            assert number == self.batches[name], "in order, each once"
            self.batches[name] += 1
            self.taken[rank.job] += BATCH
            self._steps[name] = True
            self._later(rank.step_s, lambda: self._stepped(name))

    def _stepped(self, name: str) -> None:
        self._steps[name] = False
        self._loop(name)

    def _woken(self, worker: str, name: str) -> None:
        if name in self._ranks:
            self._demands[worker].woken(name, self._ranks[name].queue.deliverable_batches)
            self._work(worker)

    def _work(self, worker: str) -> None:
        """Ask for what there is room for, and compute what is held."""
        demand = self._demands[worker]
        while (order := demand.next_pull()) is not None:
            self._later(self._travel(), lambda order=order: self._pulled(worker, order))
        if worker not in self._computes and self._held[worker]:
            self._computes.add(worker)
            self._later(PASS_S, lambda: self._computed(worker))

    def _pulled(self, worker: str, order: PullOrder) -> None:
        name, seq, room = order.student, order.seq, order.room
        if (rank := self._ranks.get(name)) is None:
            return
        grants = rank.queue.lease(worker, room, self.now)
        self._later(self._travel(), lambda: self._granted(worker, name, seq, grants))
        self._loop(name)

    def _granted(self, worker: str, name: str, seq: int, grants: list[Grant]) -> None:
        if (rank := self._ranks.get(name)) is None:
            return
        buffered = rank.queue.deliverable_batches
        if grants:
            self._demands[worker].granted(name, seq, sum(grant.cost for grant in grants), buffered)
            self._held[worker] += [(name, grant) for grant in grants]
        else:
            self._demands[worker].idled(name, seq, buffered)
        self._work(worker)

    def _computed(self, worker: str) -> None:
        """A pass of what fits into one."""
        self._computes.discard(worker)
        room = TASK
        while self._held[worker] and self._held[worker][0][1].cost <= room:
            name, grant = self._held[worker].pop(0)
            room -= grant.cost
            self._demands[worker].finished(name, grant.cost)
            self._later(self._travel(), lambda name=name, grant=grant: self._labelled(name, grant))
        self._work(worker)

    def _labelled(self, name: str, grant: Grant) -> None:
        if (rank := self._ranks.get(name)) is not None and rank.queue.holds(grant.lease):
            rank.queue.grow(grant.batch, grant.cost)
            rank.queue.complete(grant.lease, self.now)
            self._loop(name)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("ranks", [1, 3])
def test_twice_the_load_is_parted_by_weight_and_none_of_the_fleet_is_lost(workers: int, ranks: int):
    fleet = Fleet(workers, seed=7)
    capacity = workers * TASK / PASS_S
    step_s = 3 * ranks * BATCH / (2 * capacity)
    for name, weight in (("a", 2), ("b", 1), ("c", 1)):
        for rank in range(ranks if name == "a" else 1):
            own = step_s if name == "a" else step_s / ranks
            fleet.rank(f"{name}{rank}", JobShare(job=name, weight=weight), own)
    fleet.run(4)
    got = fleet.run(15)
    goodput = got.total() / (15 * capacity)
    shares = {name: 100 * samples / got.total() for name, samples in got.items()}
    print(f"goodput {goodput:.3f}, shares {shares}")
    assert goodput >= 0.9
    assert shares == {
        "a": pytest.approx(50, abs=5),
        "b": pytest.approx(25, abs=5),
        "c": pytest.approx(25, abs=5),
    }
    fleet.kill("a")
    after = fleet.run(2)
    assert after.total() >= 0.9 * 2 * capacity, "the others take its part at once"


def test_a_job_that_wants_less_than_its_part_has_all_it_wants():
    fleet = Fleet(2, seed=3)
    capacity = 2 * TASK / PASS_S
    fleet.rank("a", JobShare(job="a", weight=3), BATCH / (0.2 * capacity))
    fleet.rank("b", JobShare(job="b", weight=1), BATCH / (2 * capacity))
    fleet.run(4)
    got = fleet.run(15)
    assert got["a"] == pytest.approx(0.2 * 15 * capacity, rel=0.05)
    assert got.total() >= 0.95 * 15 * capacity


def test_a_job_of_a_higher_priority_has_all_it_wants_and_the_other_the_rest():
    fleet = Fleet(2, seed=5)
    capacity = 2 * TASK / PASS_S
    # What a worker holds already is finished first: that takes a buffer which is not almost empty by then.
    fleet.rank("high", JobShare(job="high", priority=1), BATCH / (0.7 * capacity), low_watermark=6)
    fleet.rank("low", JobShare(job="low", weight=100), BATCH / (2 * capacity))
    fleet.run(4)
    got = fleet.run(15)
    assert got["high"] >= 0.95 * 0.7 * 15 * capacity
    assert got.total() >= 0.9 * 15 * capacity
