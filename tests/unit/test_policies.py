"""How many workers a policy advises, figure by figure; how it ends in a loop is in ``test_scaling``."""

from __future__ import annotations

import math
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from edldist.coordinator.scaling.load import GroupLoad, StudentNeed, WorkerGift
from edldist.coordinator.scaling.policies import (
    ACCEPTED_SHORTAGE,
    COMPLETE_S,
    LEAST_SAVING,
    SPARE,
    SURE,
    DemandPolicy,
    WatermarkPolicy,
)

LONG_AFTER = 1000.0


def workers(*capacities: float | None, given: float = 0.0, joined_at: float = 0.0) -> list[WorkerGift]:
    return [
        WorkerGift(f"w{n}", capacity=each, given=given, joined_at=joined_at)
        for n, each in enumerate(capacities)
    ]


def load(demand: float | None, here: list[WorkerGift], **student: Any) -> GroupLoad:
    need = {"hunger": demand, "lacking": 1} | student
    return GroupLoad(workers=here, students=[StudentNeed(**need)])


def advised(demand: float | None, here: list[WorkerGift], standing: int, times: int = SURE) -> int:
    policy = DemandPolicy()
    return [policy.advise(load(demand, here), standing, LONG_AFTER) for _ in range(times)][-1].workers


class TestDemand:
    @pytest.mark.parametrize(
        ("demand", "standing", "workers_advised"),
        [
            (100.0, 1, 1),
            (104.0, 1, 1),  # a shortage of a twentieth is accepted,
            (106.0, 1, 2),
            (800.0, 1, 8),
            (801.0, 1, 9),  # but not by those that come
            (839.0, 8, 8),
            (841.0, 8, 9),
            (400.0, 8, 5),  # four would have nothing to spare,
            (391.0, 8, 4),
            (393.0, 8, 5),
            (1861.0, 20, 19),
            (400.0, 4, 4),  # and yet four that are enough stay four
            (1.0, 8, 1),
        ],
    )
    def test_is_divided_by_what_a_worker_gives(
        self, demand: float, standing: int, workers_advised: int
    ) -> None:
        assert advised(demand, workers(100.0), standing) == workers_advised

    @pytest.mark.parametrize(("demand", "urgent"), [(239.0, False), (241.0, True), (900.0, True)])
    def test_a_small_shortage_must_last_and_a_large_one_is_followed_at_once(
        self, demand: float, urgent: bool
    ) -> None:
        enough = math.ceil(demand / 100)
        assert [advised(demand, workers(100.0), 2, times) for times in (1, 2, 3)] == [
            enough if urgent else 2,
            enough if urgent else 2,
            enough,
        ]

    def test_of_a_small_shortage_the_least_that_was_seen_counts(self) -> None:
        policy = DemandPolicy()
        seen = [policy.advise(load(d, workers(100.0)), 40, 1.0).workers for d in (4400.0, 4250.0, 4390.0)]
        assert seen == [40, 40, 43]

    def test_a_small_shortage_that_comes_and_goes_changes_nothing(self) -> None:
        policy = DemandPolicy()
        for demand in (215.0, 215.0, 205.0) * 5:
            assert policy.advise(load(demand, workers(100.0)), 2, 1.0).workers == 2

    @pytest.mark.parametrize(
        ("demand", "enough"), [(150.0, 1), (390.0, 2), (400.0, 3), (440.0, 4), (800.0, 6)]
    )
    def test_the_fastest_stay_and_those_to_come_are_typical(self, demand: float, enough: int) -> None:
        """200, 190 and 20 are here: 410 together, 136.7 on the average."""
        assert advised(demand, workers(20.0, 200.0, 190.0), 0) == enough

    @hypothesis.given(
        here=st.lists(st.floats(10.0, 500.0), min_size=1, max_size=12),
        demand=st.floats(1.0, 6000.0),
        slowest_leave=st.booleans(),
        data=st.data(),
    )
    def test_whoever_stays_of_mixed_devices_is_enough_and_one_fewer_would_not_be(
        self, here: list[float], demand: float, slowest_leave: bool, data: st.DataObject
    ) -> None:
        policy, standing = DemandPolicy(slowest_leave), len(here)
        many = [
            policy.advise(load(demand, workers(*here)), standing, LONG_AFTER).workers for _ in range(SURE)
        ]
        advice = many[-1]
        ordered = sorted(here, reverse=True)
        if advice < standing:
            stay = ordered if slowest_leave else data.draw(st.permutations(here))
            assert sum(stay[:advice]) >= demand
        elif advice > standing:
            typical = sum(here) / standing
            lacking = demand - sum(here)
            assert lacking > 0 and advice - standing == math.ceil(lacking / typical - 1e-9)
        else:  # as many as are here are no clear shortage, and a twentieth fewer would be one
            assert sum(here) * (1 + ACCEPTED_SHORTAGE) >= demand * (1 - 1e-9)
            fewer = math.floor((1 - LEAST_SAVING) * standing)
            stay = ordered if slowest_leave else ordered[::-1]
            assert sum(stay[:fewer]) * (1 - SPARE) < demand * (1 + 1e-9) or fewer == 0

    def test_an_engine_that_takes_fast_ones_away_is_not_led_round_in_a_circle(self) -> None:
        """It has the youngest leave, and starts another of their kind when more are wanted."""
        for slowest_leave, steady in ((True, False), (False, True)):
            policy, here, numbers = DemandPolicy(slowest_leave), [190.0, 20.0, 20.0, 200.0], []
            for _ in range(40):
                wanted = policy.advise(load(390.0, workers(*here)), len(here), LONG_AFTER).workers
                here = here[:wanted] + [200.0] * (wanted - len(here))
                numbers.append(wanted)
            assert (len(set(numbers[20:])) == 1 and sum(here) >= 390) is steady

    def test_while_nobody_can_tell_what_students_take_all_stays(self) -> None:
        assert advised(None, workers(100.0), 5) == 5
        assert advised(None, workers(100.0), 0) == 1

    def test_while_nobody_can_tell_what_a_worker_gives_all_stays(self) -> None:
        assert advised(500.0, workers(None), 5) == 5
        assert advised(500.0, [], 0) == 1

    def test_what_a_worker_gives_is_remembered_when_all_have_gone(self) -> None:
        policy = DemandPolicy()
        policy.advise(load(100.0, workers(50.0)), 1, LONG_AFTER)
        assert policy.advise(load(401.0, []), 0, LONG_AFTER).workers == 9
        assert policy.advise(load(400.0, workers(None)), 0, LONG_AFTER).workers == 8

    @pytest.mark.parametrize(
        ("students", "why"),
        [([], "no student is here"), ([StudentNeed(hunger=100.0)], "nobody asks for labels")],
    )
    def test_with_nobody_who_asks_nobody_is_needed(self, students: list[StudentNeed], why: str) -> None:
        full = GroupLoad(workers=workers(100.0), students=students)
        assert DemandPolicy().advise(full, 5, LONG_AFTER) == (0, why)
        assert WatermarkPolicy().advise(full, 5, LONG_AFTER) == (0, why)

    def test_of_many_workers_one_is_not_worth_a_change(self) -> None:
        assert advised(3724.0, workers(100.0), 40) == 38
        assert advised(3725.0, workers(100.0), 40) == 40

    def test_whoever_asks_for_little_gets_one(self) -> None:
        assert advised(0.001, workers(100.0), 0) == 1


class TestWhatWorkersReallyGive:
    """Three workers say that they can give 100 each, are busy all the time, and give 90, while students
    wait."""

    def enough_for(self, demand: float, **changed: float) -> int:
        facts = {"starved": 0.4, "given": 90.0, "joined_at": 0.0, "standing": 3.0} | changed
        policy = DemandPolicy()
        here = workers(*[100.0] * 3, given=facts["given"], joined_at=facts["joined_at"])
        short = load(900.0, here, starved=facts["starved"], taken=3 * facts["given"])
        policy.advise(short, int(facts["standing"]), LONG_AFTER)
        # Fed well by nine, the students turn out to want so much.
        return policy.advise(load(demand, workers(*[100.0] * 9)), 9, LONG_AFTER).workers

    def test_counts_from_then_on(self) -> None:
        assert self.enough_for(280.0) == 4
        assert self.enough_for(280.0, given=100.0) == 3

    def test_makes_them_more_although_they_should_be_enough_by_what_they_say(self) -> None:
        here = workers(*[100.0] * 3, given=80.0)
        advice = DemandPolicy().advise(load(310.0, here, starved=0.2, taken=240.0), 3, LONG_AFTER)
        assert advice == (4, "students could take 310 samples/s, a worker gives 80")

    @pytest.mark.parametrize(
        "changed",
        [{"starved": 0.09}, {"given": 79.0}, {"joined_at": LONG_AFTER - COMPLETE_S + 0.1}, {"standing": 4.0}],
        ids=["nobody waits", "they are not busy", "one has just come", "one is on its way"],
    )
    def test_is_learnt_only_of_workers_that_are_all_here_and_busy(self, changed: dict[str, float]) -> None:
        assert self.enough_for(280.0, **changed) == 3

    @pytest.mark.parametrize(
        "changed",
        [{"starved": 0.1}, {"given": 80.0}, {"joined_at": LONG_AFTER - COMPLETE_S}, {"standing": 2.0}],
    )
    def test_is_learnt_at_the_edge(self, changed: dict[str, float]) -> None:
        assert self.enough_for(280.0, **changed) == 4

    def test_is_no_more_than_they_say(self) -> None:
        assert self.enough_for(290.0, given=150.0) == 3
        assert self.enough_for(300.0, given=150.0) == 4

    def test_is_not_learnt_while_the_youngest_has_just_come(self) -> None:
        policy = DemandPolicy()
        here = workers(*[100.0] * 3, given=90.0)
        here[0] = WorkerGift("w0", capacity=100.0, given=90.0, joined_at=LONG_AFTER - 1.0)
        policy.advise(load(900.0, here, starved=0.4), 3, LONG_AFTER)
        assert policy.advise(load(280.0, workers(*[100.0] * 9)), 9, LONG_AFTER).workers == 3

    def test_is_learnt_anew(self) -> None:
        policy = DemandPolicy()
        for given in (80.0, 100.0):
            here = workers(*[100.0] * 3, given=given)
            policy.advise(load(900.0, here, starved=0.5), 3, LONG_AFTER)
        assert policy.advise(load(280.0, workers(*[100.0] * 9)), 9, LONG_AFTER).workers == 3


class TestWatermarks:
    """EDL-Dist: below the lower threshold a student asks for a teacher, above the upper one it gives one
    back."""

    def advise(self, *levels: int, here: int = 4, standing: int = 4, lacking: int = 5) -> int:
        students = [StudentNeed(buffered=level, low=2, high=8, lacking=lacking) for level in levels]
        gifts = workers(*[None] * here)
        return WatermarkPolicy().advise(GroupLoad(workers=gifts, students=students), standing, 0.0).workers

    @pytest.mark.parametrize(
        ("levels", "wanted"),
        [
            ((1,), 5),
            ((2,), 4),
            ((7,), 4),
            ((8,), 3),
            ((9,), 3),
            ((0, 1, 5), 6),
            ((8, 8), 3),
            ((8, 7), 4),
            ((8, 1), 5),
        ],
    )
    def test_each_hungry_student_asks_for_one_and_full_ones_give_one_back(
        self, levels: tuple[int, ...], wanted: int
    ) -> None:
        assert self.advise(*levels) == wanted

    def test_nobody_asks_again_before_those_that_were_asked_for_are_here(self) -> None:
        assert self.advise(0, here=3) == 4

    def test_a_buffer_that_is_empty_because_nothing_is_read_asks_for_nothing(self) -> None:
        empty = StudentNeed(low=2, high=8, taken=1.0)
        group = GroupLoad(workers=workers(None), students=[empty])
        assert WatermarkPolicy().advise(group, 1, 0.0).workers == 1

    def test_the_last_one_stays_as_long_as_somebody_asks(self) -> None:
        assert self.advise(8, here=1, standing=1) == 1
        assert self.advise(1, here=0, standing=0) == 1
        assert self.advise(5, here=0, standing=0) == 1

    def test_with_a_lower_threshold_of_none_an_empty_buffer_asks(self) -> None:
        for buffered, wanted in ((0, 2), (1, 1)):
            student = StudentNeed(buffered=buffered, low=0, high=8, lacking=1)
            group = GroupLoad(workers=workers(None), students=[student])
            assert WatermarkPolicy().advise(group, 1, 0.0).workers == wanted

    @pytest.mark.parametrize("students", [[], [StudentNeed(buffered=8, low=2, high=8)]])
    def test_with_nobody_who_asks_nobody_is_needed(self, students: list[StudentNeed]) -> None:
        group = GroupLoad(workers=workers(None), students=students)
        assert WatermarkPolicy().advise(group, 3, 0.0).workers == 0
