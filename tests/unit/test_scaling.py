"""The wanted number of workers: what a person asks for, and where the policies' advice leads in a loop."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.bounds import MOST_WORKERS
from edldist.coordinator.scaling.load import GroupLoad, StudentNeed, WorkerGift
from edldist.coordinator.scaling.scaling import Bounds, Change, Rules, Scaling
from edldist.errors import ConfigError

RULES = Rules()
EVERY_S = RULES.decide_every_s


class TestBounds:
    @pytest.mark.parametrize(
        ("text", "bounds"),
        [
            ("2", Bounds(0, MOST_WORKERS, 2, False)),
            ("0", Bounds(0, MOST_WORKERS, 0, False)),
            ("1:8", Bounds(1, 8, 1, True)),
            ("0:8", Bounds(0, 8, 1, True)),
            ("3:3", Bounds(3, 3, 3, True)),
            ("1:8:5", Bounds(1, 8, 5, True)),
            ("0:8:1", Bounds(0, 8, 1, True)),
            (f"0:{MOST_WORKERS}", Bounds(0, MOST_WORKERS, 1, True)),
        ],
    )
    def test_are_a_number_or_a_range(self, text: str, bounds: Bounds) -> None:
        assert Bounds.parse(text) == bounds

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "a",
            "1:",
            ":8",
            "1:2:3",
            "3:8:2",
            "0:8:0",
            "1:8:",
            "1:8:2:2",
            "-1:8",
            "1.5",
            "8:1",
            "0:0",
            "1:10001",
            "10001",
            "١:٨",
            " 1:8",
        ],
    )
    def test_anything_else_is_refused_with_what_was_given(self, text: str) -> None:
        with pytest.raises(ConfigError) as caught:
            Bounds.parse(text)
        assert repr(text) in str(caught.value)

    def test_no_worker_at_all_is_no_range(self) -> None:
        with pytest.raises(ConfigError, match="MAX >= 1"):
            Bounds.parse("0:0")


@dataclass
class Town:
    """A teacher group whose workers take a while to start, and students that take what they give.

    Attributes:
        demand: samples per second that the students would take.
        capacity: samples per second of one worker.
        start_s: how long a worker takes to start.
        noise: by which each report differs from the truth.
        ahead: how many times more a student seems to want while it waits, because its loop does not wait for
            its device.
        loss: by which a worker gives less than it says.
    """

    scaling: Scaling
    demand: float = 100.0
    capacity: float = 100.0
    start_s: float = 20.0
    noise: float = 0.0
    ahead: float = 1.0
    loss: float = 0.0
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    now: float = 0.0
    joined: list[float] = field(default_factory=list)
    starting: list[float] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    worker_s: float = 0.0
    taken: float = 0.0

    @property
    def wanted(self) -> int:
        standing = self.scaling["big"]
        assert standing is not None and standing.wanted is not None
        return standing.wanted

    def _noisy(self, value: float) -> float:
        return value * (1 + self.noise * self.rng.uniform(-1, 1))

    def load(self) -> GroupLoad:
        supply = len(self.joined) * self.capacity * (1 - self.loss)
        took = min(self.demand, supply)
        starved = 1 - took / self.demand if self.demand else 0.0
        seems = self.demand * (self.ahead if starved > 0.01 else 1.0)
        each = took / len(self.joined) if self.joined else 0.0
        return GroupLoad(
            workers=[WorkerGift(f"w{at}", "cpu", self._noisy(self.capacity), each, at) for at in self.joined],
            students=[
                StudentNeed(
                    hunger=self._noisy(seems) if self.joined or self.taken else None,
                    starved=max(starved, 1 - 1 / self.ahead if starved > 0.01 else 0.0),
                    taken=took,
                    lacking=int(self.demand > 0),
                )
            ]
            if self.demand
            else [],
        )

    def live(self, seconds: float) -> list[int]:
        """The numbers that were wanted one after the other, as long as this lasts."""
        wanted = []
        for _ in range(int(seconds)):
            self.now += 1.0
            arrived = [at for at in self.starting if at <= self.now]
            self.starting = [at for at in self.starting if at > self.now]
            self.joined += arrived
            self.taken += min(self.demand, len(self.joined) * self.capacity * (1 - self.loss))
            self.worker_s += len(self.joined) + len(self.starting)
            if self.now >= self.scaling.due_at:
                changes = self.scaling.decide({"big": self.load()}, self.now)
                self.scaling.validate()
                wanted += [change.wanted for change in changes]
                self.changes += changes
            while len(self.joined) + len(self.starting) < self.wanted:
                self.starting.append(self.now + self.start_s)
            while len(self.joined) + len(self.starting) > self.wanted:
                (self.starting or self.joined).pop()
        return wanted


def town(bounds: str = "1:100", rules: Rules = RULES, **facts: float) -> Town:
    return Town(Scaling({"big": Bounds.parse(bounds)}, rules), **facts)


class TestFollowing:
    def test_begins_with_the_least_and_grows_in_one_step(self) -> None:
        place = town(demand=780.0)
        assert place.live(60) == [1, 8]

    def test_begins_with_those_that_are_here(self) -> None:
        place = town(demand=780.0)
        place.joined = [0.0] * 8
        assert place.live(300) == [8]

    def test_grows_no_sooner_than_the_decision_after_the_first(self) -> None:
        place = town(demand=780.0)
        place.joined = [0.0] * 3
        assert place.live(60) == [3, 8], "who was here is kept, whatever the policy would say"

    def test_shrinks_at_the_decision_at_which_less_was_enough_for_the_whole_of_that_time(self) -> None:
        scaling = Scaling({"big": Bounds.parse("1:8:8")}, Rules(down_after_s=30.0))
        here = [WorkerGift(f"w{number}", capacity=100.0) for number in range(8)]
        load = GroupLoad(here, 0, [StudentNeed(hunger=150.0, lacking=1)])
        decided = {5 * turn: scaling.decide({"big": load}, 5.0 * turn) for turn in range(8)}
        assert [at for at, changes in decided.items() if changes] == [0, 30]
        assert decided[30][0].wanted == 2

    def test_a_start_is_timed_from_when_more_were_asked_for(self) -> None:
        scaling = Scaling({"big": Bounds.parse("1:8")})
        gifts = [WorkerGift(f"w{number}", capacity=100.0) for number in range(8)]

        def decide(here: int, hunger: float, at: float) -> list[int]:
            load = GroupLoad(gifts[:here], 0, [StudentNeed(hunger=hunger, lacking=1)])
            return [change.wanted for change in scaling.decide({"big": load}, at)]

        assert [decide(1, 100.0, 0.0), decide(1, 780.0, 200.0), decide(8, 780.0, 300.0)] == [[1], [8], []]
        assert decide(7, 780.0, 305.0) == decide(8, 780.0, 400.0) == [], "one was lost, and started again"
        assert [decide(8, 150.0, at) for at in (405.0, 495.0, 500.0)] == [[], [], [2]]

    def test_the_same_number_once_more_asks_for_nobody(self) -> None:
        scaling = Scaling({"big": Bounds.parse("1:8:2")}, Rules(down_after_s=30.0))
        gifts = [WorkerGift(f"w{number}", capacity=100.0) for number in range(2)]

        def decide(here: int, at: float) -> list[int]:
            load = GroupLoad(gifts[:here], 0, [StudentNeed(hunger=50.0, lacking=1)])
            return [change.wanted for change in scaling.decide({"big": load}, at)]

        decide(2, 0.0)
        scaling.hold("big", 2, 10.0)
        assert decide(1, 15.0) == decide(2, 115.0) == [], "one was lost, and started again"
        scaling.hold("big", None, 115.0)
        standing = scaling["big"]
        assert standing is not None and standing.why.endswith("lets the coordinator decide now")
        assert [decide(2, at) for at in (120.0, 140.0, 145.0)] == [[], [], [1]], "none took 105 s to start"

    def test_a_range_bounds_it(self) -> None:
        assert town("2:4", demand=780.0).live(120) == [2, 4]
        assert town("2:4", demand=1.0).live(300) == [2]

    def test_shrinks_when_less_was_enough_for_as_long_as_a_start_takes(self) -> None:
        place = town(demand=780.0, start_s=100.0)
        place.live(200)
        place.demand = 180.0
        assert place.live(95) == []
        assert place.live(15) == [2]

    def test_a_dip_that_is_shorter_changes_nothing(self) -> None:
        place = town(demand=780.0, start_s=100.0)
        place.live(200)
        for _ in range(3):
            place.demand = 180.0
            assert place.live(80) == []
            place.demand = 780.0
            assert place.live(30) == []

    @pytest.mark.parametrize(("start_s", "down_s"), [(5.0, 30.0), (120.0, 120.0), (900.0, 300.0)])
    def test_the_time_that_a_start_took_is_bounded(self, start_s: float, down_s: float) -> None:
        place = town(demand=780.0, start_s=start_s)
        place.live(2000)
        place.demand = 180.0
        assert place.live(down_s - EVERY_S - 1) == []
        assert place.live(EVERY_S + 2) == [2]

    def test_before_anybody_started_it_is_a_minute(self) -> None:
        place = town(demand=780.0)
        place.joined = [0.0] * 8
        place.live(100)
        place.demand = 180.0
        assert place.live(RULES.down_after_s - EVERY_S - 1) == []
        assert place.live(EVERY_S + 2) == [2]

    def test_goes_to_nothing_when_nobody_asks_and_comes_back_at_once(self) -> None:
        place = town("0:100", demand=780.0)
        place.live(100)
        place.demand = 0.0
        assert place.live(40) == [0]
        place.demand = 780.0
        assert place.live(EVERY_S + 1) == [8]

    def test_the_least_stays_when_nobody_asks(self) -> None:
        place = town("1:100", demand=780.0)
        place.live(100)
        place.demand = 0.0
        assert place.live(600) == [1]

    def test_those_that_were_lost_are_still_wanted(self) -> None:
        place = town(demand=780.0)
        place.live(100)
        place.joined = place.joined[:3]
        assert place.live(300) == []
        assert len(place.joined) == 8

    def test_says_why(self) -> None:
        place = town(demand=780.0)
        place.live(60)
        change = place.changes[-1]
        assert (change.group, change.before, change.wanted) == ("big", 1, 8)
        assert change.why == "students could take 780 samples/s, a worker gives 100"
        place.demand = 100.0
        place.live(100)
        why = "students could take 100 samples/s, a worker gives 100; so many were enough for 30 s"
        assert place.changes[-1].why == why
        place.demand = 101.0
        place.live(100)
        standing = place.scaling["big"]
        assert standing is not None and standing.why == why, "that is why there are so many, then as now"


class TestCalm:
    @settings(max_examples=40, deadline=None)
    @given(
        before=st.floats(1.0, 30.0),
        after=st.floats(1.0, 30.0),
        start_s=st.sampled_from([5.0, 30.0, 60.0, 300.0]),
        noise=st.sampled_from([0.0, 0.01, 0.02]),
        ahead=st.sampled_from([1.0, 1.0, 3.0, 20.0]),
        loss=st.sampled_from([0.0, 0.0, 0.15]),
        seed=st.integers(0, 1000),
    )
    def test_three_decisions_after_a_change_of_load_all_is_still(
        self, before: float, after: float, start_s: float, noise: float, ahead: float, loss: float, seed: int
    ) -> None:
        place = town(start_s=start_s, noise=noise, ahead=ahead, loss=loss, rng=random.Random(seed))
        for demand in (before, after):
            place.demand = demand * place.capacity
            place.live(5 * (start_s + 120.0) + 300.0)
            moved = [change.wanted for change in place.changes if change.before is not None]
            place.changes.clear()
            # Up; back where that was too many; and up again where the workers gave less than they said. Where
            # both go wrong at once, the last two come twice.
            assert len(moved) <= (3 if ahead == 1.0 or not loss else 5), moved
            # At the edge between two numbers, noise may take its time to tip it over: once, and never back.
            assert len(place.live(900.0)) <= (noise > 0)
            supply = len(place.joined) * place.capacity * (1 - loss)
            assert supply >= place.demand * 0.9
            assert len(place.joined) <= math.ceil(1.1 * demand / (1 - loss)) + 1


class TestWatermark:
    """The rule of EDL-Dist as a policy: it reaches what is needed, a step at a time, and finds no rest."""

    def test_reaches_what_is_needed_and_stays_about_it(self) -> None:
        place = town(rules=Rules(policy="watermark", down_after_s=30.0), demand=480.0, start_s=5.0)
        buffers = 0.0
        numbers = []
        for _ in range(600):
            place.now += 1
            place.joined += [at for at in place.starting if at <= place.now]
            place.starting = [at for at in place.starting if at > place.now]
            buffers = min(8.0, max(0.0, buffers + (len(place.joined) * 100 - 480) / 100))
            if place.now >= place.scaling.due_at:
                student = StudentNeed(lacking=1, buffered=int(buffers), low=2, high=8)
                gifts = [WorkerGift(f"w{n}") for n in range(len(place.joined))]
                place.scaling.decide({"big": GroupLoad(gifts, 0, [student])}, place.now)
                place.scaling.validate()
            while len(place.joined) + len(place.starting) < place.wanted:
                place.starting.append(place.now + 5.0)
            del place.joined[place.wanted :]
            numbers.append(place.wanted)
        assert numbers[0] == 1 and set(numbers[200:]) == {4, 5, 6}
        assert all(abs(b - a) <= 1 for a, b in zip(numbers, numbers[1:], strict=False))


class TestAPersonsNumber:
    def test_holds_until_auto(self) -> None:
        place = town(demand=780.0)
        place.live(60)
        assert place.scaling.hold("big", 3, place.now) == Change("big", 8, 3, "a person asked for that many")
        place.scaling.validate()
        assert place.live(600) == [] and place.wanted == 3
        assert place.scaling.hold("big", None, place.now) is None
        place.scaling.validate()
        assert place.live(60) == [8]

    def test_let_go_it_shrinks_no_sooner_than_any_other(self) -> None:
        place = town(demand=180.0)
        place.live(60)
        place.scaling.hold("big", 20, place.now)
        place.live(200)
        place.scaling.hold("big", None, place.now)
        assert place.live(25) == []
        assert place.live(10) == [2]

    def test_is_taken_before_anything_is_decided(self) -> None:
        place = town(demand=780.0)
        assert place.scaling.hold("big", 5, 0.0) == Change("big", None, 5, "a person asked for that many")
        assert place.live(100) == []
        assert place.wanted == 5

    def test_that_was_raised_before_anything_is_decided_tells_how_long_a_start_takes(self) -> None:
        scaling = Scaling({"big": Bounds.parse("1:8")}, Rules(down_after_s=30.0, most_down_s=300.0))
        for workers in (2, 3):
            scaling.hold("big", workers, 0.0)
        load = GroupLoad([WorkerGift("w", capacity=100.0)], 0, [StudentNeed(hunger=50.0, lacking=1)])
        scaling.decide({"big": load}, 100.0)
        scaling.hold("big", None, 100.0)
        decided = [scaling.decide({"big": load}, at) for at in (195.0, 200.0)]
        assert [[change.wanted for change in changes] for changes in decided] == [[], [1]]

    def test_that_is_the_same_is_no_change(self) -> None:
        place = town(demand=780.0)
        place.live(60)
        assert place.scaling.hold("big", 8, place.now) is None
        standing = place.scaling["big"]
        assert standing is not None and (standing.held, standing.why) == (8, "a person asked for that many")

    @pytest.mark.parametrize("workers", [0, 9, 10_000])
    def test_outside_the_bounds_is_refused(self, workers: int) -> None:
        place = town("1:8")
        place.live(30)
        with pytest.raises(ConfigError, match=f"'big' has from 1 to 8 workers; {workers} are not"):
            place.scaling.hold("big", workers, place.now)
        assert place.wanted == 1

    @pytest.mark.parametrize("workers", [1, 8])
    def test_may_be_the_bounds(self, workers: int) -> None:
        place = town("1:8")
        place.scaling.hold("big", workers, 0.0)
        assert place.wanted == workers

    def test_of_a_group_that_nobody_knows_is_refused_with_those_that_are_known(self) -> None:
        with pytest.raises(ConfigError, match="no teacher group 'huge' can be scaled here; there are: big"):
            town().scaling.hold("huge", 2, 0.0)
        two = Scaling({"big": Bounds.parse("2"), "a": Bounds.parse("2")})
        with pytest.raises(ConfigError, match="there are: a, big"):
            two.hold("huge", 2, 0.0)
        with pytest.raises(ConfigError, match="there are: none"):
            Scaling({}).hold("huge", None, 0.0)


class TestANumberOfTheJob:
    def test_stays_whatever_is_asked(self) -> None:
        place = town("2", demand=780.0)
        assert place.live(300) == [2]
        place.demand = 0.0
        assert place.live(300) == []

    def test_gives_way_to_a_persons_and_comes_back(self) -> None:
        place = town("2", demand=780.0)
        place.live(30)
        place.scaling.hold("big", 8, place.now)
        assert place.live(300) == [] and place.wanted == 8
        assert place.scaling.hold("big", None, place.now) == Change("big", 8, 2, "the job asks for that many")
        place.scaling.validate()

    def test_comes_back_before_anything_is_decided(self) -> None:
        place = town("2")
        place.scaling.hold("big", 8, 0.0)
        place.scaling.hold("big", None, 0.0)
        place.scaling.validate()
        assert place.wanted == 2


def test_without_bounds_nothing_is_ever_due() -> None:
    scaling = Scaling({})
    assert scaling.due_at == math.inf and scaling["big"] is None and scaling.wanted("big") is None
    assert scaling.decide({"big": GroupLoad()}, 1.0) == [] and scaling.due_at == math.inf


def test_a_decision_is_due_at_once_and_then_every_few_seconds() -> None:
    scaling = Scaling({"big": Bounds.parse("1:8")})
    assert scaling.due_at == -math.inf
    scaling.decide({}, 100.0)
    assert scaling.due_at == 100.0 + EVERY_S


def test_each_group_has_its_own() -> None:
    scaling = Scaling({"a": Bounds.parse("1:8"), "b": Bounds.parse("3:8")})
    assert set(scaling.groups) == {"a", "b"}
    assert scaling.wanted("a") is None, "nobody can tell yet"
    assert [(c.group, c.wanted) for c in scaling.decide({}, 0.0)] == [("a", 1), ("b", 3)]
    assert (scaling.wanted("a"), scaling.wanted("b")) == (1, 3)
    busy = GroupLoad([WorkerGift("w", capacity=10.0)], 0, [StudentNeed(hunger=50.0, lacking=1)])
    assert [(c.group, c.wanted) for c in scaling.decide({"a": busy}, 5.0)] == [("a", 5)]
