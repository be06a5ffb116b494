"""What jobs that share a fleet are told while it is overloaded: by whom it is relieved, and who waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from edldist.coordinator.members.membership import Action, Membership, Record, Send
from edldist.coordinator.overload.overload import DOWN_S, UP_S, Step
from edldist.coordinator.overload.shedding import AGAIN_S, CODEC_UP_S, DECIDE_EVERY_S, HOLDS_S, Shedding
from edldist.observe.overload import STEPS
from edldist.wire.messages import Degradation, Heartbeat, JobShare, Need, Shed
from tests.unit.members import WALL, student, teacher


class Fleet:
    """A coordinator's members, and what they are told second by second."""

    def __init__(self, workers: Mapping[str, float | None]) -> None:
        self.members = Membership("inc", 1.0, 3.0, 0.0)
        self.shedding = Shedding()
        self.now = 0.0
        self.told: dict[str, Shed] = {}
        self.said = 0
        self.events: list[dict[str, Any]] = []
        self._beats: dict[str, Heartbeat] = {}
        for group, capacity in workers.items():
            self._join(group.encode(), teacher(id=f"w-{group}", group=group, process=f"p-{group}"))
            self._beats[group] = Heartbeat(id=f"w-{group}", capacity=capacity)

    def worker(self, group: str, name: str, capacity: float) -> None:
        self._join(name.encode(), teacher(id=name, group=group, process=f"p-{name}"))
        self._beats[name] = Heartbeat(id=name, capacity=capacity)

    def capacity(self, group: str, capacity: float) -> None:
        """What the group's first worker gives from now on."""
        self._beats[group] = Heartbeat(id=f"w-{group}", capacity=capacity)

    def _join(self, peer: bytes, register: Any) -> None:
        self.members.register(peer, register, self.now, WALL)

    def job(
        self, name: str, hunger: float | None, *teachers: str, degrade: Sequence[str] = (), **share: Any
    ) -> None:
        """A job of one rank that would take so much; ``big=int8`` is a smaller codec of ``big``."""
        self.rank(name, name, hunger, *teachers, degrade=degrade, **share)

    def rank(
        self,
        job: str,
        name: str,
        hunger: float | None,
        *teachers: str,
        degrade: Sequence[str] = (),
        **share: Any,
    ) -> None:
        """One of a job's ranks."""
        named = JobShare(job=job, **share)
        parts = [each.partition("=") for each in degrade]
        chain = [Degradation(teacher=to, codec=codec) for to, _, codec in parts]
        own = student(id=name, process=f"p-{name}", teachers=list(teachers), share=named, degrade=chain)
        self._join(name.encode(), own)
        self.hunger(name, hunger, teachers)

    def hunger(self, name: str, hunger: float | None, teachers: tuple[str, ...]) -> None:
        needs = [
            Need(group=each, hunger=hunger if n == 0 else None, lacking=9, buffered=0)
            for n, each in enumerate(teachers)
        ]
        self._beats[name] = Heartbeat(id=name, needs=needs, starved=0.5)

    def leave(self, name: str) -> None:
        del self._beats[name]
        self.members._remove(name)

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += DECIDE_EVERY_S
            for peer, beat in self._beats.items():
                self.members.heartbeat(peer.encode(), beat, self.now)
            assert self.shedding.due(self.now)
            for action in self.shedding.decide(self.members.members.values(), self.now, WALL):
                self._take(action)

    def _take(self, action: Action) -> None:
        if isinstance(action, Send):
            assert isinstance(action.message, Shed)
            self.told[action.peer.decode()] = action.message  # type: ignore[attr-defined]
            self.said += 1
        elif isinstance(action, Record):
            self.events.append({"event": action.event.event} | action.event.fields)


def test_nobody_is_told_anything_while_no_job_says_what_it_may_have():
    fleet = Fleet({"big": 100.0})
    fleet.job("a", 400.0, "big")
    fleet.run(60)
    assert not fleet.said and not fleet.events and fleet.shedding.step("big") is Step.NONE


def test_jobs_of_one_priority_read_less_ahead_and_none_of_them_waits():
    fleet = Fleet({"big": 100.0})
    for name, weight in (("a", 2), ("b", 1), ("c", 1)):
        fleet.job(name, 70.0, "big", weight=weight)
    fleet.run(60)
    assert {(shed.step, shed.waits) for shed in fleet.told.values()} == {(Step.STORE, "")}
    assert [event["step"] for event in fleet.events] == ["less is read ahead", "the store comes first"]
    assert fleet.events[0] | {"before": "nothing", "demand": 210.0, "capacity": 100.0} == fleet.events[0]


def test_a_job_waits_for_one_of_its_groups_though_another_has_room():
    fleet = Fleet({"big": 100.0, "alpha": 100.0})
    fleet.job("high", 150.0, "big", priority=1)
    fleet.job("low", 150.0, "big", "alpha")
    fleet.run(30)
    assert "of teacher 'big'" in fleet.told["low"].waits


def test_a_rank_that_was_told_hears_that_it_is_over_though_another_came_meanwhile():
    fleet = Fleet({"big": 100.0})
    for rank in ("r0", "r1"):
        fleet.rank("a", rank, 200.0, "big", weight=1)
    fleet.run(30)
    for rank in ("r0", "r1"):
        fleet.hunger(rank, 10.0, ("big",))
    fleet.run(2 * int(DOWN_S))
    del fleet.shedding._told[b"r0"]  # as of a rank that has just come
    fleet.run(int(DOWN_S))
    assert fleet.shedding.step("big") is Step.NONE and fleet.told["r1"].step == Step.NONE


def test_jobs_of_other_groups_make_nobody_wait():
    fleet = Fleet({"big": 100.0, "small": 100.0})
    fleet.job("a", 300.0, "big", priority=1)
    fleet.job("b", 10.0, "small")
    fleet.run(60)
    assert fleet.shedding.step("big") is Step.STORE and not any(shed.waits for shed in fleet.told.values())


def test_what_happens_to_several_groups_at_once_is_told_in_the_order_of_their_names():
    names = list("fcadeb")
    fleet = Fleet(dict.fromkeys(names, 100.0))
    for name in names:
        fleet.job(f"job-{name}", 300.0, name, weight=1)
    fleet.run(int(UP_S) + 1)
    assert [event["name"] for event in fleet.events] == sorted(names)


def test_what_a_student_was_told_is_said_again_before_it_lapses():
    fleet = Fleet({"big": 100.0})
    fleet.job("a", 400.0, "big", weight=1)
    fleet.run(10)
    before = fleet.said
    fleet.run(60)
    assert fleet.told["a"].retry_after_s == HOLDS_S > 2 * AGAIN_S
    assert 60 / AGAIN_S - 1 <= fleet.said - before <= 60 / AGAIN_S + 1


def test_a_job_of_a_lower_priority_waits_while_others_take_all_and_is_let_in_when_they_leave_room():
    fleet = Fleet({"big": 100.0})
    fleet.job("high", 150.0, "big", priority=1)
    fleet.job("low", 150.0, "big")
    fleet.run(30)
    assert not fleet.told["high"].waits
    why = fleet.told["low"].waits
    assert "higher priority than 0 could take 150 samples/s of teacher 'big', which gives 100" in why
    assert fleet.events[-1] == {"event": "job_waits", "job": "low", "reason": why}
    assert [event["event"] for event in fleet.events].count("job_waits") == 1
    since = fleet.now
    fleet.hunger("high", 90.0, ("big",))
    fleet.run(30)
    assert fleet.told["low"].waits, "90 of 100 is no room for one that waits"
    fleet.hunger("high", 60.0, ("big",))
    fleet.run(2)
    assert not fleet.told["low"].waits and fleet.told["low"].step
    assert fleet.events[-1]["event"] == "job_let_in"
    assert fleet.now - since < fleet.events[-1]["waited_s"] < fleet.now
    fleet.hunger("high", 90.0, ("big",))
    fleet.run(30)
    assert not fleet.told["low"].waits, "nor is it a reason to let one wait that runs"


def test_a_job_that_waits_is_let_in_when_those_before_it_have_left():
    fleet = Fleet({"big": 100.0})
    fleet.job("high", 150.0, "big", priority=1)
    fleet.job("low", None, "big", priority=-3)
    fleet.run(30)
    assert fleet.told["low"].waits
    fleet.leave("high")
    fleet.run(1)
    assert not fleet.told["low"].waits
    fleet.hunger("low", 50.0, ("big",))
    fleet.run(60)
    assert fleet.shedding.step("big") is Step.NONE and fleet.told["low"] == Shed(
        step=0, retry_after_s=HOLDS_S
    )


def test_those_that_allow_it_are_degraded_the_lowest_first_and_no_more_than_it_takes():
    fleet = Fleet({"big": 100.0, "small": 1000.0})
    fleet.job("a", 60.0, "big", "small", degrade=["small"], weight=2)
    fleet.job("b", 60.0, "big", "small", degrade=["small"], weight=1)
    fleet.job("c", 20.0, "big", weight=1)
    fleet.run(60)
    assert {name: shed.degrade for name, shed in fleet.told.items()} == {"a": 0, "b": 1, "c": 0}
    assert fleet.shedding.step("big") is Step.DEGRADE and fleet.shedding.step("small") is Step.NONE
    fleet.leave("a")
    fleet.run(2 * int(DOWN_S))
    assert fleet.told["b"].degrade == 0, "20 and 60 are not too much for 100"


def test_a_job_of_a_lower_priority_is_degraded_first_whatever_its_weight():
    fleet = Fleet({"big": 100.0, "small": 1000.0})
    fleet.job("a", 60.0, "big", "small", degrade=["small"], weight=1)
    fleet.job("b", 60.0, "big", "small", degrade=["small"], weight=9, priority=-1)
    fleet.run(60)
    assert {name: shed.degrade for name, shed in fleet.told.items()} == {"a": 0, "b": 1}


def test_nobody_is_degraded_to_a_teacher_that_is_not_here_or_has_enough_itself():
    fleet = Fleet({"big": 100.0})
    fleet.job("a", 300.0, "big", "small", degrade=["small"])
    fleet.run(60)
    assert fleet.told["a"].degrade == 0 and fleet.told["a"].step == Step.STORE
    fleet = Fleet({"big": 100.0, "small": 50.0, "tiny": 1000.0})
    fleet.job("a", 300.0, "big", "small", "tiny", degrade=["small", "tiny"])
    fleet.run(60)
    assert fleet.told["a"].degrade == 2, "the next one is overloaded too"


def test_the_same_workers_answer_with_a_smaller_codec_and_with_their_own_when_they_would_be_enough_so():
    fleet = Fleet({"big": 100.0})
    fleet.job("a", 130.0, "big", degrade=["big=int8", "big=topk:4"])
    fleet.run(3 * int(UP_S) + 1)
    assert fleet.told["a"].degrade == 1 and fleet.shedding.step("big") is Step.DEGRADE
    assert fleet.events[-1] == {"event": "job_degraded", "job": "a", "to": "teacher big as int8"}
    fleet.capacity("big", 110.0)
    fleet.run(int(CODEC_UP_S) - 2)
    assert fleet.told["a"].degrade == 1, "what it brings shows by and by"
    fleet.capacity("big", 160.0)
    fleet.run(200)
    assert fleet.told["a"].degrade == 1, "130 of 160 are enough, but of the 100 of before they are not"
    fleet.hunger("a", 85.0, ("big",))
    fleet.run(int(DOWN_S) + 2)
    assert fleet.told["a"].degrade == 0
    assert fleet.events[-1] == {"event": "job_degraded", "job": "a", "to": "what it asks"}


def test_where_a_smaller_codec_is_not_enough_the_next_one_or_another_teacher_follows():
    fleet = Fleet({"big": 100.0, "small": 1000.0})
    fleet.job("a", 300.0, "big", "small", degrade=["big=int8", "small"])
    fleet.run(3 * int(UP_S) + int(CODEC_UP_S) + 2)
    assert fleet.told["a"].degrade == 2
    assert [event["to"] for event in fleet.events if event["event"] == "job_degraded"] == [
        "teacher big as int8",
        "teacher small",
    ]


def test_a_job_is_degraded_as_far_as_it_allows_before_one_of_more_weight_is():
    fleet = Fleet({"big": 100.0})
    fleet.job("a", 200.0, "big", degrade=["big=int8"], weight=2)
    fleet.job("b", 200.0, "big", degrade=["big=int8", "big=topk:4"], weight=1)
    seen = []
    for second in range(100):
        fleet.capacity("big", 100.0 + second)  # each brings a little
        fleet.run(1)
        seen.append((fleet.told["b"].degrade, fleet.told["a"].degrade) if fleet.told else (0, 0))
    assert list(dict.fromkeys(seen)) == [(0, 0), (1, 0), (2, 0), (2, 1)]


def test_workers_that_come_meanwhile_count_as_those_that_were_here_before_the_smaller_codec():
    fleet = Fleet({"big": 100.0})
    fleet.job("a", 130.0, "big", degrade=["big=int8"])
    fleet.run(3 * int(UP_S) + 1)
    assert fleet.told["a"].degrade == 1
    fleet.worker("big", "w2", 160.0)
    fleet.capacity("big", 160.0)
    fleet.run(int(DOWN_S) + 2)
    assert fleet.told["a"].degrade == 0, "two of 100 each are enough for 130"


def test_it_is_decided_once_a_second() -> None:
    fleet = Fleet({"big": 100.0})
    fleet.run(1)
    assert not fleet.shedding.due(fleet.now + DECIDE_EVERY_S - 0.01)
    assert fleet.shedding.due(fleet.now + DECIDE_EVERY_S)


def test_what_was_done_is_taken_back_step_by_step_when_nobody_says_any_more_what_it_may_have() -> None:
    fleet = Fleet({"big": 100.0})
    fleet.job("named", 300.0, "big", priority=1)
    fleet.job("other", 300.0, "big")
    fleet.run(30)
    assert fleet.shedding.step("big") is Step.REFUSE and fleet.told["other"].waits
    fleet.leave("named")
    fleet.events.clear()
    said = fleet.said
    fleet.run(4 * int(DOWN_S))
    assert {(event["event"], event["demand"]) for event in fleet.events} == {("overload_step", 0.0)}
    assert [event["step"] for event in fleet.events] == [STEPS[2], STEPS[1], STEPS[0]]
    assert [event["before"] for event in fleet.events] == [STEPS[4], STEPS[2], STEPS[1]]
    assert fleet.said == said and fleet.shedding._groups == {}, "what it was told lapses"
    assert fleet.shedding._gave == {} and fleet.shedding._moved_at == {}


def test_a_group_that_gives_nothing_and_of_which_nothing_is_asked_is_not_overloaded() -> None:
    fleet = Fleet({"big": 100.0})
    fleet.job("a", 300.0, "big", weight=1)
    fleet.run(30)
    assert fleet.shedding.step("big") is Step.STORE
    del fleet._beats["big"]
    fleet.members._remove("w-big")
    fleet.run(30)
    assert fleet.shedding.step("big") is Step.STORE, "nobody can tell what a worker would give"
    fleet.hunger("a", 0.0, ("big",))
    fleet.run(3 * int(DOWN_S))
    assert fleet.shedding.step("big") is Step.NONE


def test_that_it_is_over_is_said_once() -> None:
    fleet = Fleet({"big": 100.0})
    fleet.job("a", 400.0, "big", weight=1)
    fleet.run(10)
    fleet.hunger("a", 50.0, ("big",))
    fleet.run(60)
    assert fleet.told["a"].step == Step.NONE
    said = fleet.said
    fleet.run(10)
    assert fleet.said == said


def test_a_job_that_was_degraded_knows_though_its_other_teacher_has_enough() -> None:
    fleet = Fleet({"big": 100.0, "small": 1000.0})
    fleet.job("a", 300.0, "big", "small", degrade=["small"])
    fleet.run(60)
    assert fleet.told["a"] == Shed(step=Step.DEGRADE, degrade=1, retry_after_s=HOLDS_S)


def test_ranks_of_a_job_are_one_and_may_what_the_first_among_them_may() -> None:
    fleet = Fleet({"big": 100.0})
    fleet.job("low", 50.0, "big")
    for rank, priority in (("r0", 0), ("r1", 2)):
        fleet.rank("high", rank, 75.0, "big", priority=priority)
    fleet.run(30)
    assert fleet.told["low"].waits.startswith("jobs of a higher priority than 0 could take 150 samples/s")
    assert not fleet.told["r0"].waits and fleet.told["r1"] == fleet.told["r0"]


def test_of_two_that_may_be_degraded_the_one_with_less_weight_is_and_then_the_first_by_name() -> None:
    for weights, degraded in (({"a": 3, "b": 2}, "b"), ({"a": 2, "b": 2}, "a")):
        fleet = Fleet({"big": 100.0, "small": 1000.0})
        for name, weight in weights.items():
            fleet.job(name, 60.0, "big", "small", degrade=["small"], weight=weight)
        fleet.run(60)
        assert [name for name, shed in fleet.told.items() if shed.degrade] == [degraded]


def test_a_job_that_asks_several_teachers_is_counted_at_each_for_what_it_takes_there() -> None:
    fleet = Fleet({"big": 100.0, "small": 100.0})
    fleet.job("a", 300.0, "big", "small", weight=1)
    fleet.run(60)
    assert fleet.shedding.step("big") is Step.STORE and fleet.shedding.step("small") is Step.NONE
    assert fleet.told["a"].step == Step.STORE and fleet.told["a"].degrade == 0


def test_while_nobody_knows_what_is_taken_or_given_nothing_is_done() -> None:
    for capacity, hunger in ((100.0, None), (None, 300.0)):
        fleet = Fleet({"big": capacity})
        fleet.job("a", hunger, "big", weight=1)
        fleet.run(30)
        assert not fleet.events and not fleet.said


def test_a_codec_with_which_workers_give_no_more_is_given_up_until_the_overload_is_over():
    fleet = Fleet({"big": 100.0, "small": 1000.0})
    fleet.job("a", 300.0, "big", "small", degrade=["big=topk:4", "big=int8", "small"])
    fleet.run(3 * int(UP_S) + 1)
    assert fleet.told["a"].degrade == 1
    fleet.capacity("big", 80.0)
    fleet.run(int(CODEC_UP_S) + 1)
    assert fleet.told["a"].degrade == 2, "packing is what costs; the next one may be cheaper"
    fleet.run(int(CODEC_UP_S) + 1)
    assert fleet.told["a"].degrade == 3
    assert [event["to"] for event in fleet.events if event["event"] == "job_degraded"] == [
        "teacher big as topk:4",
        "teacher big as int8",
        "teacher small",
    ]
    fleet.capacity("big", 100.0)
    fleet.hunger("a", 50.0, ("big",))
    fleet.run(6 * int(DOWN_S))
    assert fleet.shedding.step("big") is Step.NONE and fleet.told["a"].degrade == 0
    fleet.hunger("a", 300.0, ("big",))
    fleet.run(3 * int(UP_S) + 2)
    assert fleet.told["a"].degrade == 1, "another overload, another try"


@pytest.mark.parametrize(("before", "after"), [((100.0,), (100.0,)), ((50.0, 50.0), (40.0, 40.0))])
def test_a_codec_is_of_no_use_where_all_workers_together_give_no_more(
    before: tuple[float, ...], after: tuple[float, ...]
):
    fleet = Fleet({"big": before[0]})
    for number, capacity in enumerate(before[1:]):
        fleet.worker("big", f"w{number}", capacity)
    fleet.job("a", 300.0, "big", degrade=["big=topk:4"])
    fleet.run(3 * int(UP_S) + 1)
    assert fleet.told["a"].degrade == 1
    fleet.capacity("big", after[0])
    for number, capacity in enumerate(after[1:]):
        fleet._beats[f"w{number}"] = Heartbeat(id=f"w{number}", capacity=capacity)
    fleet.run(int(CODEC_UP_S) + 1)
    assert fleet.told["a"].degrade == 0


def test_what_workers_gave_before_a_codec_is_what_all_of_them_gave_at_the_last_step():
    fleet = Fleet({"big": 45.0})
    fleet.worker("big", "w2", 45.0)
    fleet.job("a", 200.0, "big", degrade=["big=int8"])
    fleet.run(2 * int(UP_S) + 1)
    assert fleet.shedding.step("big") is Step.STORE

    def capacity(each: float) -> None:
        fleet.capacity("big", each)
        fleet._beats["w2"] = Heartbeat(id="w2", capacity=each)

    capacity(60.0)
    fleet.run(int(UP_S))
    assert fleet.told["a"].degrade == 1
    capacity(75.0)
    fleet.hunger("a", 125.0, ("big",))
    fleet.run(3 * int(DOWN_S))
    assert fleet.told["a"].degrade == 1, "125 of 150 are enough, but of the 120 of before they are not"
    fleet.hunger("a", 100.0, ("big",))
    fleet.run(int(DOWN_S) + 2)
    assert fleet.told["a"].degrade == 0


def test_where_nothing_is_left_to_try_the_job_has_its_own_labels_again():
    fleet = Fleet({"big": 100.0})
    fleet.job("a", 300.0, "big", degrade=["big=topk:4"])
    fleet.run(3 * int(UP_S) + 1)
    fleet.capacity("big", 80.0)
    fleet.run(int(CODEC_UP_S) + 1)
    assert fleet.told["a"].degrade == 0 and fleet.shedding.step("big") is Step.STORE
    fleet.run(100)
    assert fleet.told["a"].degrade == 0
