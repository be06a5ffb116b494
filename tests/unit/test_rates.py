"""What members give and want: measured from their counters, and links that follow it calmly."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest

from edldist.clock import FakeClock
from edldist.coordinator.links.orders import Orders
from edldist.coordinator.members.membership import WEIGH_S, Membership
from edldist.coordinator.members.rates import RecentRate, differs
from edldist.wire.messages import Heartbeat, Need
from tests.unit.members import WALL, student, teacher

BOUND = 8


def test_differs_by_a_clear_factor_only() -> None:
    assert not differs(math.nan, math.nan) and not differs(math.nan, 5.0)
    assert differs(5.0, math.nan)
    assert not differs(15.0, 10.0) and not differs(10.0, 15.0)
    assert not differs(14.9, 10.0) and differs(15.1, 10.0) and differs(6.6, 10.0) and not differs(6.7, 10.0)


class Fleet:
    """Twenty workers and sixty students of one coordinator, whose heartbeats a test makes up."""

    def __init__(self, rejoin: bool = False, links: dict[str, frozenset[str]] | None = None) -> None:
        self.clock = FakeClock(1000.0)
        self.members = Membership("life", 1.0, 3.0, self.clock.monotonic())
        self.orders = Orders(self.members, BOUND, self.clock, lambda peer, links: True)
        self.given = {f"t{n:02}": 100.0 for n in range(20)}
        self.wanted = {f"s{n:02}": 40.0 for n in range(60)}
        self.decided = 0
        info = {"rejoin": rejoin}
        for number, name in enumerate(self.wanted):
            self._join(student(name, address=f"tcp://a:{number}", process=name, info=info))
        for name in self.given:
            told = sorted((links or {}).get(name, ()))
            self._join(teacher(name, process=name, links=told, info=info))

    def _join(self, register: Any) -> None:
        self.members.register(register.id.encode(), register, self.clock.monotonic(), WALL)

    def live(self, seconds: float, noise: float = 0.0) -> None:
        rng = random.Random(int(seconds))
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            now = self.clock.monotonic()
            for name, mean in (self.given | self.wanted).items():
                rate = mean * (1 + noise * rng.uniform(-1, 1)) or None
                if name in self.given:
                    beat = Heartbeat(id=name, capacity=rate)
                else:
                    needs = [Need(group="big", hunger=rate, lacking=0, buffered=0)]
                    beat = Heartbeat(id=name, needs=needs)
                self.members.heartbeat(name.encode(), beat, now)
            self.members.tick(now, WALL)
            if now >= self.orders.due_at(now):
                self.orders.decide(now)
                self.decided += 1

    @property
    def links(self) -> dict[str, frozenset[str]]:
        return {name: self.members.members[name].links for name in self.given}

    def workers_of(self, names: list[str]) -> list[int]:
        counts = Counter(s for served in self.links.values() for s in served)
        return [counts[name] for name in names]


def moved(before: dict[str, frozenset[str]], after: dict[str, frozenset[str]]) -> int:
    return sum(len(before[name] - after[name]) for name in before)


def test_students_that_take_more_get_more_workers() -> None:
    fleet = Fleet()
    fleet.live(2 * WEIGH_S)
    everyone = list(fleet.wanted)
    assert max(fleet.workers_of(everyone)) - min(fleet.workers_of(everyone)) <= 2
    hungry = everyone[:10]
    fleet.wanted |= dict.fromkeys(hungry, 160.0)
    fleet.live(4 * WEIGH_S)
    assert min(fleet.workers_of(hungry)) >= 2 * max(fleet.workers_of(everyone[10:]))
    assert min(fleet.workers_of(everyone)) >= 1


def test_workers_that_give_more_are_spread() -> None:
    fleet = Fleet()
    strong = list(fleet.given)[::2]
    fleet.given |= dict.fromkeys(strong, 1500.0)
    fleet.live(4 * WEIGH_S)
    served = Counter(s for name in strong for s in fleet.links[name])
    assert len(served) == len(fleet.wanted) and max(served.values()) <= 2


def test_equal_rates_and_noise_move_no_links() -> None:
    """Members report means of ten seconds, in which a noise of 30 % a second is one of 10 %."""
    fleet = Fleet()
    fleet.live(10.0)
    unweighed = fleet.links
    fleet.live(2 * WEIGH_S, noise=0.1)
    weighed, decided = fleet.links, fleet.decided
    assert moved(unweighed, weighed) <= 2
    fleet.live(20 * WEIGH_S, noise=0.1)
    assert moved(weighed, fleet.links) == 0 and fleet.decided == decided


def test_a_change_moves_few_links_and_seldom() -> None:
    fleet = Fleet()
    fleet.live(2 * WEIGH_S)
    before, decided = fleet.links, fleet.decided
    one = next(iter(fleet.wanted))
    fleet.wanted[one] = 160.0
    fleet.live(5 * WEIGH_S)
    assert fleet.workers_of([one])[0] >= 5
    assert moved(before, fleet.links) <= 12
    assert fleet.decided - decided <= 5


def test_a_fresh_coordinator_moves_no_links_before_it_knows_the_rates() -> None:
    former = Fleet()
    hungry = list(former.wanted)[:10]
    former.wanted |= dict.fromkeys(hungry, 160.0)
    former.live(5 * WEIGH_S)
    fresh = Fleet(rejoin=True, links=former.links)
    fresh.wanted = former.wanted
    assert fresh.links == former.links
    fresh.live(WEIGH_S - 5)
    assert fresh.decided and fresh.links == former.links
    fresh.live(3 * WEIGH_S)
    assert moved(former.links, fresh.links) <= 4


def test_a_fresh_coordinator_that_never_learns_rates_balances_all_the_same() -> None:
    lopsided = {f"t{n:02}": frozenset(f"s{s:02}" for s in range(BOUND)) for n in range(20)}
    fresh = Fleet(rejoin=True, links=lopsided)
    fresh.given, fresh.wanted = dict.fromkeys(fresh.given, 0.0), dict.fromkeys(fresh.wanted, 0.0)
    fresh.live(2 * WEIGH_S)
    served = fresh.workers_of(list(fresh.wanted))
    assert max(served) - min(served) <= 2


def test_rates_count_once_in_a_while_and_only_if_one_has_changed() -> None:
    members = Membership("life", 1.0, 3.0, 0.0)
    members.register(b"t1", teacher(), 0.0, WALL)
    worker, version = members.members["t1"], members.version
    for at, capacity, counts in (
        (1.0, None, math.nan),
        (WEIGH_S, None, math.nan),
        (WEIGH_S + 1, 5.0, 5.0),
        (2 * WEIGH_S, 50.0, 5.0),
        (2 * WEIGH_S + 1, 50.0, 50.0),
        (3 * WEIGH_S + 2, 55.0, 50.0),
    ):
        members.heartbeat(b"t1", Heartbeat(id="t1", capacity=capacity), at)
        members.tick(at, WALL)
        assert worker.weight == counts or math.isnan(worker.weight) and math.isnan(counts)
    assert members.version == version + 2


def test_the_first_rates_count_when_members_had_time_to_measure_them() -> None:
    members = Membership("life", 1.0, 3.0, 100.0)
    members.register(b"t1", teacher(), 100.0, WALL)
    members.heartbeat(b"t1", Heartbeat(id="t1", capacity=5.0), 101.0)
    members.tick(100.0 + WEIGH_S - 0.1, WALL)
    assert math.isnan(members.members["t1"].weight)
    members.tick(100.0 + WEIGH_S, WALL)
    assert members.members["t1"].weight == 5.0


def test_a_student_is_as_hungry_as_it_is_for_the_group_of_which_it_takes_most() -> None:
    members = Membership("life", 1.0, 3.0, 0.0)
    members.register(b"s1", student(teachers=["big", "small", "new"]), 0.0, WALL)
    rank = members.members["s1"]
    assert math.isnan(rank.rate)
    needs = [
        Need(group=group, hunger=hunger, lacking=0, buffered=0)
        for group, hunger in (("big", 10.0), ("small", 40.0), ("new", None))
    ]
    members.heartbeat(b"s1", Heartbeat(id="s1", needs=needs), 1.0)
    assert rank.rate == 40.0


class TestTheLastSeconds:
    def test_what_was_done_long_ago_does_not_count(self) -> None:
        recent = RecentRate()
        assert recent.value is None
        for second in range(10):
            recent.see(100 * second, float(second))
        assert recent.value == 100.0
        for second in range(10, 17):
            recent.see(900, float(second))
        assert recent.value == 0.0
        recent.see(910, 17.0)
        assert recent.value == 2.0

    def test_nothing_is_a_count_and_no_time_is_no_rate(self) -> None:
        recent = RecentRate()
        recent.see(0, 1.0)
        recent.see(10, 1.0)
        assert recent.value is None
        recent.see(10, 2.0)
        assert recent.value == 10.0

    def test_of_one_that_is_seldom_heard_the_last_two_words_count(self) -> None:
        recent = RecentRate()
        for samples, now in ((0, 0.0), (0, 6.0), (60, 12.0)):
            recent.see(samples, now)
        assert recent.value == 10.0

    def test_a_count_that_begins_again_is_no_negative_rate(self) -> None:
        recent = RecentRate()
        for samples, now in ((500, 1.0), (5, 2.0), (25, 3.0)):
            recent.see(samples, now)
        assert recent.value == 20.0

    @pytest.mark.parametrize("bad", [None, "many", True, -1, math.nan, math.inf])
    def test_what_is_no_count_is_passed_over(self, bad: Any) -> None:
        recent = RecentRate()
        for second in range(3):
            recent.see(bad, float(second))
        assert recent.value is None
