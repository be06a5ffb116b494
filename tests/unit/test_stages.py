"""How long stages take: counted where they happen, added up over members that are here and that are gone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist.coordinator.course.happenings import Happenings
from edldist.coordinator.course.records import Records
from edldist.coordinator.members.lives import KEPT_S, MOST_KEPT, Lives, StageTotals
from edldist.coordinator.members.membership import Membership
from edldist.coordinator.overload.shedding import Shedding
from edldist.coordinator.scaling.scaling import Rules, Scaling
from edldist.coordinator.status import StatusView
from edldist.observe.stages import BOUNDS_S, StageClock, times_of
from edldist.wire.messages import Event, Goodbye, Heartbeat, Register, StageTimes, decode, encode
from edldist.wire.traffic import Traffic
from edldist.wire.transport import Piece, Sender

ALICE, BOB = Sender(b"alice"), Sender(b"bob")


def worker(name: str, rejoin: bool = False, attempt: int = 0) -> Register:
    return Register(
        id=name, role="teacher", process=f"p-{name}", group="big", attempt=attempt, info={"rejoin": rejoin}
    )


def rank(name: str, process: str, number: int = 0, rejoin: bool = False) -> Register:
    return Register(
        id=name,
        role="student",
        process=process,
        address="tcp://h:1",
        teachers=["big"],
        job="digits",
        info={"rank": number, "rejoin": rejoin},
    )


def times(stage: str, *seconds: float) -> StageTimes:
    clock = StageClock()
    for each in seconds:
        clock.took(each)
    return clock.told(stage)


@given(st.lists(st.floats(min_value=0, max_value=1000)))
def test_every_duration_is_in_the_first_bucket_that_holds_it(durations: list[float]) -> None:
    told = times("compute", *durations)
    bounds = [*BOUNDS_S, float("inf")]
    for at, bound in enumerate(bounds):
        assert sum(told.counts[: at + 1]) == sum(duration <= bound for duration in durations)
    assert told.sum_s == sum(durations)


def test_what_is_told_of_stages_travels_and_is_a_copy() -> None:
    clock = StageClock()
    (told,) = times_of({"compute": clock})
    clock.took(0.1)
    assert sum(told.counts) == 0
    beat = Heartbeat(id="t", stages=times_of({"compute": clock}))
    assert decode(encode(beat)) == beat


def test_sums_leave_out_what_a_member_had_done_before_it_came() -> None:
    totals = StageTotals()
    totals.add("teacher", "big", [times("compute", 0.1, 0.1, 3.0)], [times("compute", 0.1)])
    totals.add("teacher", "big", [times("compute", 0.1)])
    (told,) = totals.told()
    assert (told["role"], told["group"], told["stage"]) == ("teacher", "big", "compute")
    assert sum(told["counts"]) == 3 and abs(told["sum_s"] - 3.2) < 1e-9


def waits(stage: str, *seconds: float) -> StageTimes:
    clock = StageClock()
    for each in seconds:
        clock.waited(each)
    return clock.told(stage)


def test_waits_are_added_up_as_durations_are() -> None:
    totals = StageTotals()
    totals.add("teacher", "big", [waits("compute", 0.1, 0.1, 3.0)], [waits("compute", 0.1)])
    totals.add("teacher", "big", [times("compute", 0.2), waits("infer", 1.0)])
    totals.add("teacher", "big", [waits("compute", 0.1)])
    compute, infer = totals.told()
    assert (compute["stage"], infer["stage"]) == ("compute", "infer")
    assert sum(compute["waits"]) == 3 and abs(compute["waited_s"] - 3.2) < 1e-9
    assert sum(compute["counts"]) == 1 and compute["sum_s"] == 0.2


def test_a_member_that_counts_less_than_before_or_in_fewer_buckets_takes_nothing_away() -> None:
    totals = StageTotals()
    before = StageTimes("compute", sum_s=5.0, counts=[4, 1], waited_s=7.0, waits=[4, 1])
    after = StageTimes("compute", sum_s=2.0, counts=[1, 2, 3], waited_s=3.0, waits=[1, 2, 3])
    totals.add("teacher", "big", [after], [before])
    totals.add("teacher", "big", [StageTimes("compute", sum_s=1.0, counts=[1], waited_s=0.5, waits=[1])])
    (told,) = totals.told()
    assert (told["sum_s"], told["counts"], told["waited_s"], told["waits"]) == (
        1.0,
        [1, 1, 3],
        0.5,
        [1, 1, 3],
    )


def test_sums_are_told_by_role_group_and_stage_and_a_copy_is_one() -> None:
    totals = StageTotals()
    for group, stage in (("small", "compute"), ("big", "send"), ("big", "compute")):
        totals.add("teacher", group, [times(stage, 0.1)])
    copied = totals.copy()
    copied.add("teacher", "big", [times("compute", 0.1)])
    assert [(each["group"], each["stage"]) for each in totals.told()] == [
        ("big", "compute"),
        ("big", "send"),
        ("small", "compute"),
    ]
    assert sum(totals.told()[0]["counts"]) == 1 and sum(copied.told()[0]["counts"]) == 2


class TestSumsOverMembers:
    """A sum that shrank would be taken for a restart, and the whole of it for what was just done."""

    def setup_method(self) -> None:
        self.members = Membership("c", 1.0, 3.0, 0.0)
        self.view = StatusView("c", 0.0, self.members, Records(), Scaling({}, Rules()), Shedding())

    def beat(self, peer: Sender, name: str, *seconds: float) -> None:
        self.members.heartbeat(peer, Heartbeat(id=name, stages=[times("compute", *seconds)]), 1.0)

    def passes(self) -> int:
        return sum(sum(each["counts"]) for each in self.view._lives(2.0)["stages"])

    def test_who_leaves_is_counted_on(self) -> None:
        self.members.register(ALICE, rank("a", "p1"), 0.0, 0.0)
        self.members.register(BOB, rank("b", "p2"), 0.0, 0.0)
        self.beat(ALICE, "a", 0.1, 0.2)
        self.beat(BOB, "b", 0.1)
        assert self.passes() == 3
        self.members.goodbye(ALICE, Goodbye(id="a"), 0.0)
        assert self.passes() == 3

    def test_who_was_here_before_is_not_counted_twice(self) -> None:
        self.members.register(ALICE, rank("a", "p1"), 0.0, 0.0)
        self.beat(ALICE, "a", 0.1, 0.2)
        self.members.goodbye(ALICE, Goodbye(id="a"), 0.0)
        self.members.register(ALICE, rank("a", "p1", rejoin=True), 0.0, 0.0)
        self.beat(ALICE, "a", 0.1, 0.2, 0.3)
        assert self.passes() == 2, "what it did before it came back is not known to be new"
        self.beat(ALICE, "a", 0.1, 0.2, 0.3, 0.4)
        assert self.passes() == 3


class TestLives:
    def test_who_left_is_told_of_for_a_while_with_its_last_figures(self) -> None:
        lives = Lives()
        lives.left(rank("s", "p"), {"samples": 640}, [], [], 10.0)
        (gone,) = lives.gone(11.0)
        assert (gone["id"], gone["job"], gone["stats"], gone["ago_s"]) == (
            "s",
            "digits",
            {"samples": 640},
            1.0,
        )
        assert lives.gone(10.0 + KEPT_S + 1) == []

    def test_who_left_first_is_forgotten_first_and_at_its_own_time(self) -> None:
        lives = Lives()
        lives.left(worker("t"), {}, [], [], 10.0)
        lives.left(worker("u"), {}, [], [], 20.0)
        assert [each["id"] for each in lives.gone(10.0 + KEPT_S)] == ["t", "u"]
        assert [each["id"] for each in lives.gone(10.5 + KEPT_S)] == ["u"]

    def test_what_who_left_had_done_is_added_up_by_teacher_group_or_job(self) -> None:
        lives = Lives()
        lives.left(worker("t"), {}, [times("compute", 0.1, 0.2)], [times("compute", 0.1)], 1.0)
        lives.left(rank("s", "p"), {}, [times("wait", 0.1)], [], 1.0)
        told = {(each["role"], each["group"]): sum(each["counts"]) for each in lives.stages.told()}
        assert told == {("teacher", "big"): 1, ("student", "digits"): 1}

    def test_workers_that_are_started_again_are_no_ranks(self) -> None:
        lives = Lives()
        assert lives.restarts() == {"teacher": 0, "student": 0}
        for name, attempt, rejoins in (("t", 0, False), ("t", 1, False), ("u", 2, False), ("v", 1, True)):
            lives.joined(worker(name, attempt=attempt, rejoin=rejoins), rejoins)
        assert lives.restarts() == {"teacher": 2, "student": 0}

    def test_so_many_ranks_are_counted_and_no_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edldist.coordinator.members.lives.MOST_RANKS", 2)
        lives = Lives()
        for number in range(3):
            lives.joined(rank(f"a{number}", "p1", number=number), False)
        for process in ("p2", "p3"):
            lives.joined(rank("a2", process, number=2), False)
        assert lives.restarts() == {"teacher": 0, "student": 0}
        lives.joined(rank("a1", "p2", number=1), False)
        assert lives.restarts()["student"] == 1, "of those that are known it still is"

    def test_who_comes_back_is_gone_no_more(self) -> None:
        lives = Lives()
        lives.left(worker("t"), {}, [], [], 10.0)
        lives.joined(worker("t", rejoin=True), True)
        assert lives.gone(11.0) == []

    def test_a_crowd_that_leaves_takes_no_more_room(self) -> None:
        lives = Lives()
        for number in range(MOST_KEPT + 10):
            lives.left(worker(f"t{number}"), {}, [], [], 10.0)
        assert len(lives.gone(10.0)) == MOST_KEPT and lives.gone(10.0)[0]["id"] == "t10"

    def test_restarts_are_counted_as_in_the_result(self) -> None:
        lives = Lives()
        for name, process in (("a", "p1"), ("a-eval", "p1"), ("b", "p2"), ("c", "p3")):
            lives.joined(rank(name, process), False)
        lives.joined(rank("d", "p4", number=1), False)
        lives.joined(worker("t"), False)
        lives.joined(worker("t", attempt=1), False)
        lives.joined(worker("u", attempt=3, rejoin=True), True)
        assert lives.restarts() == {"teacher": 1, "student": 2}


def test_events_are_counted_and_checkpoints_added_up() -> None:
    happenings = Happenings()
    for step in (50, 100):
        fields = {"step": step, "bytes": 1000, "seconds": 0.25}
        happenings.note(Event(event="checkpoint_saved", t=0.0, fields=fields))
    happenings.note(Event(event="teacher_lost", t=0.0))
    told = happenings.told()
    assert {name: count for name, count in told["events"].items() if count} == {
        "checkpoint_saved": 2,
        "teacher_lost": 1,
    }
    assert told["events"]["student_lost"] == 0, "a scraper has to see it grow"
    assert told["checkpoints"] == {"seconds": 0.5, "bytes": 2000, "step": 100}


def test_an_event_that_was_held_already_is_not_counted_again() -> None:
    records = Records()
    event = Event(event="checkpoint_saved", t=0.0, fields={}, reporter="r", seq=1)
    records.add_once(event)
    records.add_once(event)
    assert records.happenings.told()["events"]["checkpoint_saved"] == 1


def test_bytes_are_counted_by_the_way_that_they_went() -> None:
    traffic = Traffic()
    traffic.sent([b"1234", Piece(memoryview(bytes(10)), None, 0)], 10)  # type: ignore[arg-type]
    by_socket = [memoryview(bytes(3))]
    traffic.received(by_socket, by_socket)
    traffic.received(by_socket, [memoryview(bytes(3)), memoryview(bytes(100))])
    assert traffic.as_stats() == {
        "sent_socket_bytes": 4,
        "received_socket_bytes": 6,
        "sent_shared_bytes": 10,
        "received_shared_bytes": 100,
    }
