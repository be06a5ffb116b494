"""What is asked of a teacher group and what it can give, out of what its members report."""

from __future__ import annotations

from typing import Any

import pytest

from edldist.coordinator.members.membership import Membership
from edldist.coordinator.scaling.load import GroupLoad, StudentNeed, WorkerGift, loads
from edldist.wire.messages import Heartbeat, Need
from tests.unit.members import WALL, student, teacher


def gifts(*capacities: float | None, **facts: Any) -> list[WorkerGift]:
    return [WorkerGift(f"w{n}", capacity=each, **facts) for n, each in enumerate(capacities)]


def test_what_is_not_told_is_nothing() -> None:
    assert WorkerGift("w") == WorkerGift("w", "", None, 0.0, 0.0, False)
    assert StudentNeed() == StudentNeed("", None, 0.0, 0.0, 0, 0, 0, 0)
    assert GroupLoad() == GroupLoad((), 0, ())


class TestDemand:
    def test_is_the_sum_of_what_students_would_take(self) -> None:
        assert GroupLoad(students=[StudentNeed(hunger=30.0), StudentNeed(hunger=12.0)]).demand == 42.0

    def test_is_unknown_while_no_student_can_tell(self) -> None:
        assert GroupLoad(students=[StudentNeed(), StudentNeed()]).demand is None

    def test_is_nothing_without_students(self) -> None:
        assert GroupLoad(workers=gifts(5.0)).demand == 0.0

    def test_a_student_that_cannot_tell_yet_counts_as_the_mean_of_the_others(self) -> None:
        assert GroupLoad(
            students=[StudentNeed(hunger=30.0), StudentNeed(hunger=10.0), StudentNeed()]
        ).demand == pytest.approx(60.0)

    def test_ranks_that_train_together_wait_for_the_one_that_waits_most(self) -> None:
        """Both took 10 a second. One waited for half of the time, and the other for it, in a collective."""
        waiting = StudentNeed("g1", hunger=20.0, starved=0.5)
        held_up = StudentNeed("g1", hunger=10.0)
        assert GroupLoad(students=[waiting, held_up]).demand == pytest.approx(40.0)
        alone = [StudentNeed("", hunger=20.0, starved=0.5), StudentNeed("", hunger=10.0)]
        assert GroupLoad(students=alone).demand == pytest.approx(30.0)

    def test_a_rank_that_only_waits_does_not_make_the_others_want_without_end(self) -> None:
        stuck = [StudentNeed("g1", hunger=20.0, starved=1.0), StudentNeed("g1", hunger=10.0)]
        assert GroupLoad(students=stuck).demand == pytest.approx(20.0 + 10.0 / 0.05)

    @pytest.mark.parametrize("need", [StudentNeed(lacking=1), StudentNeed(taken=0.5)])
    def test_somebody_asks_while_a_student_waits_or_takes(self, need: StudentNeed) -> None:
        assert GroupLoad(students=[StudentNeed(), need]).asked
        assert not GroupLoad(students=[StudentNeed(hunger=5.0, buffered=8)]).asked
        found = StudentNeed(hunger=0.0, taken=30.0)
        assert not GroupLoad(students=[found]).asked, "its labels are found in a store"
        assert GroupLoad(students=[found, StudentNeed(hunger=0.0, taken=30.0, lacking=1)]).asked

    def test_the_share_of_waiting_is_that_of_the_student_that_waits_most(self) -> None:
        needs = [StudentNeed(hunger=1.0, starved=0.2), StudentNeed(hunger=1.0, starved=0.4)]
        assert GroupLoad(students=needs).starved == 0.4
        assert GroupLoad(students=[StudentNeed(starved=0.4)]).starved is None

    def test_what_is_taken_adds_up(self) -> None:
        assert GroupLoad(students=[StudentNeed(taken=3.0), StudentNeed(taken=4.0)]).taken == 7.0


class TestCapacities:
    def test_a_worker_that_has_not_labelled_yet_counts_as_those_on_its_device(self) -> None:
        slow, fast = gifts(10.0, None, device="T4"), gifts(80.0, 120.0, None, device="A100")
        load = GroupLoad(workers=[*slow, *fast])
        assert load.capacities() == [10.0, 10.0, 80.0, 120.0, 100.0]
        assert list(load.by_device.items()) == [("A100", 100.0), ("T4", 10.0)]

    def test_on_a_device_of_which_nothing_is_known_it_counts_as_the_mean_of_all(self) -> None:
        load = GroupLoad(workers=[*gifts(10.0, 30.0, device="T4"), *gifts(None, device="A100")])
        assert load.capacities(typical=999.0) == [10.0, 30.0, 20.0]

    def test_with_no_figure_at_all_they_are_as_those_before_them(self) -> None:
        assert GroupLoad(workers=gifts(None, None)).capacities(typical=7.0) == [7.0, 7.0]
        assert GroupLoad(workers=gifts(None)).capacities() == []


class TestWhoLeaves:
    def test_first_those_that_fail_then_the_slowest_then_the_youngest(self) -> None:
        workers = [
            WorkerGift("old", capacity=50.0, joined_at=1.0),
            WorkerGift("young", capacity=50.0, joined_at=9.0),
            WorkerGift("slow", capacity=20.0, joined_at=0.0),
            WorkerGift("failing", capacity=90.0, joined_at=0.0, failing=True),
            WorkerGift("fast", capacity=90.0, joined_at=9.0),
        ]
        assert GroupLoad(workers=workers).leaving() == ["failing", "slow", "young", "old", "fast"]

    def test_a_new_one_is_as_fast_as_its_like(self) -> None:
        workers = [
            WorkerGift("new", "A100", None, joined_at=9.0),
            WorkerGift("b", "A100", 90.0, joined_at=1.0),
            WorkerGift("c", "T4", 10.0, joined_at=2.0),
        ]
        assert GroupLoad(workers=workers).leaving() == ["c", "new", "b"]

    def test_before_anything_is_known_the_youngest(self) -> None:
        workers = [WorkerGift("b", joined_at=1.0), WorkerGift("a", joined_at=1.0), WorkerGift("c")]
        assert GroupLoad(workers=workers).leaving() == ["a", "b", "c"]


class TestFromMembers:
    def make(self) -> Membership:
        members = Membership("life", 1.0, 3.0, 0.0)
        for name in ("t1", "t2", "t3"):
            members.register(name.encode(), teacher(name, process=name, device_type="A100"), 1.0, WALL)
        members.register(
            b"s1",
            student("s1", group="g", teachers=["big", "small"], low_watermark=2, high_watermark=8),
            1.0,
            WALL,
        )
        return members

    def test_says_who_gives_and_who_needs_what(self) -> None:
        members = self.make()
        for now, samples in ((2.0, 100), (4.0, 160)):
            members.heartbeat(
                b"t1",
                Heartbeat(id="t1", stats={"samples": samples, "quarantine": "it fails"}, capacity=70.0),
                now,
            )
            members.heartbeat(
                b"s1",
                Heartbeat(
                    id="s1",
                    stats={"samples": samples},
                    needs=[Need(group="big", hunger=40.0, lacking=3, buffered=5)],
                    starved=0.25,
                ),
                now,
            )
        members.heartbeat(b"t2", Heartbeat(id="t2", stats={"draining": True}), 4.0)
        found = loads(members.members.values())
        assert set(found) == {"big", "small"}
        assert found["big"].draining == 1
        assert {worker.id: worker for worker in found["big"].workers} == {
            "t1": WorkerGift("t1", "A100", 70.0, 30.0, 1.0, True),
            "t3": WorkerGift("t3", "A100", None, 0.0, 1.0, False),
        }
        assert found["big"].students == [StudentNeed("g", 40.0, 0.25, 30.0, 3, 5, 2, 8)]
        assert found["small"] == GroupLoad((), 0, [StudentNeed("g", None, 0.25, 30.0, 0, 0, 2, 8)])

    def test_a_student_that_has_said_nothing_yet_needs_nothing(self) -> None:
        members = Membership("life", 1.0, 3.0, 0.0)
        members.register(b"s1", student("s1"), 1.0, WALL)
        assert loads(members.members.values()) == {"big": GroupLoad((), 0, [StudentNeed()])}

    def test_a_group_whose_last_worker_drains_is_there(self) -> None:
        members = Membership("life", 1.0, 3.0, 0.0)
        members.register(b"t1", teacher("t1"), 1.0, WALL)
        members.heartbeat(b"t1", Heartbeat(id="t1", stats={"draining": True}), 2.0)
        assert loads(members.members.values()) == {"big": GroupLoad((), 1, ())}
