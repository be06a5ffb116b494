"""Who is here: what the membership core says to every message and to the passing of time."""

from __future__ import annotations

import json

import msgspec
import pytest

from edldist.coordinator.course.records import Records
from edldist.coordinator.members.membership import Membership, Send
from edldist.coordinator.members.refusals import MOST
from edldist.coordinator.overload.shedding import Shedding
from edldist.coordinator.scaling.scaling import Rules, Scaling
from edldist.coordinator.status import MOST_EXPLAINED, StatusView
from edldist.observe.states import state_of, states_of
from edldist.wire.messages import (
    Degradation,
    Goodbye,
    Heartbeat,
    Refused,
    Register,
    Registered,
    Regroup,
    TeachersHere,
    Unknown,
    Vouch,
)
from edldist.wire.transport import Sender
from tests.greetings import fingerprint
from tests.unit.members import S1, WALL, events, live, make, sent, student, teacher


def test_a_student_is_told_which_teachers_are_here_while_the_one_it_wants_is_not() -> None:
    members = make()
    members.register(b"s1", student(teachers=["big", "teacher"]), 0.0, WALL)
    beat = Heartbeat(id="s1")
    assert members.heartbeat(b"s1", beat, 1.0) == []  # teachers may only be about to come
    members.register(b"t1", teacher(), 1.0, WALL)
    assert sent(members.heartbeat(b"s1", beat, 2.0)) == [(b"s1", TeachersHere(groups=["big"]))]
    members.register(b"t2", teacher("t2", group="teacher", process="p9"), 2.0, WALL)
    assert members.heartbeat(b"s1", beat, 3.0) == []


def test_a_registration_is_answered_and_recorded() -> None:
    members = make()
    actions = members.register(b"t1", teacher(), 0.0, WALL)
    answer = Registered(incarnation="inc", heartbeat_interval_s=1.0, heartbeat_ttl_s=3.0, wall_s=WALL)
    assert sent(actions) == [(b"t1", answer)]
    assert events(actions) == [("teacher_joined", {"id": "t1", "name": "big", "host": "a", "pid": 7})]
    actions = members.register(b"s1", student(info={"rank": 3}), 0.0, WALL)
    assert events(actions) == [("student_joined", {"id": "s1", "rank": 3, "host": "a"})]
    assert set(members.members) == {"t1", "s1"}
    [(_, fields)] = events(
        members.register(b"s2", student("s2", low_watermark=1, high_watermark=4), 0.0, WALL)
    )
    assert (fields["low_watermark"], fields["high_watermark"]) == (1, 4)


@pytest.mark.parametrize(
    ("registration", "word"),
    [
        (teacher(""), "id"),
        (teacher(group=""), "group"),
        (student(address=""), "address"),
        (student(teachers=[]), "names no teacher"),
        (student(teachers=["big", ""]), "empty name"),
        (student(degrade=[Degradation(teacher="small")]), "may be degraded to teacher 'small'"),
    ],
)
def test_registrations_that_make_no_sense_are_refused_with_the_reason(
    registration: Register, word: str
) -> None:
    members = make()
    actions = members.register(b"p", registration, 0.0, WALL)
    [(peer, refusal)] = sent(actions)
    assert peer == b"p" and isinstance(refusal, Refused) and word in refusal.reason
    assert not members.members and not events(actions) and members.version == 0


def test_the_same_process_registers_again_quietly_from_another_connection() -> None:
    members = make()
    members.register(b"p1", student(), 0.0, WALL)
    before = members.version
    actions = members.register(b"p2", student(address="tcp://a:2"), 1.0, WALL)
    assert [type(m) for _, m in sent(actions)] == [Registered] and not events(actions)
    assert members.members["s1"].register.address == "tcp://a:2" and members.version > before
    assert sent(members.heartbeat(b"p1", Heartbeat(id="s1"), 1.0)) == [(b"p1", Unknown())]
    assert members.heartbeat(b"p2", Heartbeat(id="s1"), 1.0) == []


def test_an_id_of_a_live_member_is_refused_to_another_process_and_free_after_its_ttl() -> None:
    members = make()
    members.register(b"p1", teacher(), 0.0, WALL)
    # Containers share host names, and with them process ids.
    namesake = teacher(process="p9")
    [(peer, refusal)] = sent(members.register(b"p2", namesake, 1.0, WALL))
    assert peer == b"p2" and "pid 7 on a" in refusal.reason and "1.0 s ago" in refusal.reason
    assert members.members["t1"].peer == b"p1"
    actions = members.register(b"p2", namesake, 3.0, WALL)
    assert [name for name, _ in events(actions)] == ["teacher_lost", "teacher_joined"]
    assert members.members["t1"].peer == b"p2"
    assert members.heartbeat(b"p2", Heartbeat(id="t1"), 3.0) == []


def test_a_connection_that_registers_as_someone_else_was_left_by_its_former_member() -> None:
    members = make()
    members.register(b"p", teacher("t1"), 0.0, WALL)
    actions = members.register(b"p", teacher("t2"), 0.0, WALL)
    assert [name for name, _ in events(actions)] == ["teacher_left", "teacher_joined"]
    assert set(members.members) == {"t2"}


def test_a_stranger_who_took_over_a_member_s_route_is_not_that_member() -> None:
    members = make()
    member, thief = Sender(b"t1", "key of the member"), Sender(b"t1", "another key")
    members.register(member, teacher(), 0.0, WALL)
    assert sent(members.heartbeat(thief, Heartbeat(id="t1"), 1.0)) == [(thief, Unknown())]
    assert members.goodbye(thief, Goodbye(id="t1"), WALL) == []
    assert members.heartbeat(member, Heartbeat(id="t1"), 1.0) == []


@pytest.mark.parametrize("process", ["its own", "the member's"])
def test_another_key_takes_no_living_member_s_place(process: str) -> None:
    members = make()
    member, thief = Sender(b"t1", "K1", "teacher", "teacher"), Sender(b"x", "K2", "teacher", "alice")
    members.register(member, teacher(), 0.0, WALL, member.owner)
    own = members.members["t1"].register.process
    again = msgspec.structs.replace(teacher(), attempt=9, process="p-thief" if process == "its own" else own)
    ((to, refused),) = sent(members.register(thief, again, 1.0, WALL, thief.owner))
    assert to == thief and isinstance(refused, Refused) and "id t1 is held by" in refused.reason
    assert members.heartbeat(member, Heartbeat(id="t1"), 1.1) == []
    members.validate()
    rotated = Sender(b"t1", "K3", "teacher", "teacher")
    actions = members.register(rotated, again, 1.2, WALL, rotated.owner)
    assert isinstance(sent(actions)[0][1], Registered), "its own next key"
    assert isinstance(sent(members.register(thief, again, 9.0, WALL, thief.owner))[0][1], Registered), (
        "silent"
    )


def test_strangers_are_told_to_register() -> None:
    members = make()
    members.register(b"t1", teacher(), 0.0, WALL)
    assert sent(members.heartbeat(b"x", Heartbeat(id="x"), 0.0)) == [(b"x", Unknown())]
    assert sent(members.heartbeat(b"x", Heartbeat(id="t1"), 0.0)) == [(b"x", Unknown())]
    assert sent(members.heartbeat(b"t1", Heartbeat(id="x"), 0.0)) == [(b"t1", Unknown())]


def test_silence_past_the_ttl_loses_a_member_and_not_earlier() -> None:
    members = make()
    for member_id in ("t1", "t2", "t3"):
        members.register(member_id.encode(), teacher(member_id), 0.0, WALL)
    version = members.version
    assert live(members, 2.5, "t2", "t3") == [] and members.version == version
    lost = live(members, 3.0, "t2", "t3", since=2.5)
    assert events(lost) == [("teacher_lost", {"id": "t1", "name": "big", "silent_s": 3.0})]
    assert set(members.members) == {"t2", "t3"} and members.version > version
    assert sent(members.heartbeat(b"t1", Heartbeat(id="t1"), 3.1)) == [(b"t1", Unknown())]


def test_any_message_counts_as_a_heartbeat() -> None:
    members = make()
    members.register(b"t1", teacher(), 0.0, WALL)
    members.register(b"t2", teacher("t2"), 0.0, WALL)
    live(members, 2.5, "t2")
    members.heard(b"t1", 2.5)
    members.heard(b"nobody", 2.5)
    assert live(members, 5.0, "t2", since=2.5) == []
    assert [name for name, _ in events(live(members, 5.5, "t2", since=5.0))] == ["teacher_lost"]


def test_ranks_that_train_with_a_lost_one_are_told_which_group_changed() -> None:
    members = make()
    groups = {"s1": "job@h:1", "s2": "job@h:1", "s3": "job@h:2", "s4": ""}
    for number, (member_id, group) in enumerate(groups.items()):
        register = student(member_id, group=group, address=f"tcp://a:{number}", pid=100 + number)
        members.register(member_id.encode(), register, 0.0, WALL)
    orders = sent(live(members, 3.5, "s2", "s3", "s4"))
    reason = "rank s1 has been silent for 3 s"
    assert orders == [(b"s2", Regroup(generation="job@h:1", lost="s1", reason=reason))]


def test_a_lost_student_leaves_its_last_figures_in_the_record() -> None:
    members = make()
    members.register(b"s1", student(info={"rank": 2}), 0.0, WALL)
    members.heartbeat(b"s1", Heartbeat(id="s1", stats={"done": 41, "id": "forged"}), 0.0)
    assert events(live(members, 3.0)) == [("student_lost", {**S1, "rank": 2, "done": 41, "silent_s": 3.0})]


def test_goodbyes_are_recorded_with_their_reason() -> None:
    members = make()
    members.register(b"t1", teacher(), 0.0, WALL)
    members.register(b"s1", student(info={"rank": 0}), 0.0, WALL)
    members.heartbeat(b"s1", Heartbeat(id="s1", stats={"batches": 9}), 0.0)
    assert members.goodbye(b"x", Goodbye(id="t1", reason="not me"), WALL) == []
    left = members.goodbye(b"t1", Goodbye(id="t1", reason="drained"), WALL)
    assert events(left) == [("teacher_left", {"id": "t1", "name": "big", "reason": "drained"})]
    left = members.goodbye(b"s1", Goodbye(id="s1"), WALL)
    assert events(left) == [("student_left", {**S1, "rank": 0, "batches": 9, "reason": ""})]
    assert not members.members
    assert members.goodbye(b"t1", Goodbye(id="t1"), WALL) == []


@pytest.mark.parametrize("again", [teacher(links=["s1"]), teacher(info={"rejoin": True})])
def test_members_of_a_former_coordinator_are_marked_as_rejoined(again: Register) -> None:
    members = make()
    [(_, fields)] = events(members.register(b"t1", again, 0.0, WALL))
    assert fields["rejoined"] is True
    assert members.members["t1"].links == frozenset(again.links)


def test_an_answer_carries_both_clocks() -> None:
    actions = make().register(b"s1", student(wall_s=WALL - 20), 0.0, WALL)
    answer = next(action.message for action in actions if isinstance(action, Send))
    assert isinstance(answer, Registered)
    assert (answer.wall_s, answer.asked_wall_s) == (WALL, WALL - 20)


def test_a_fresh_coordinator_is_settled_once_everyone_had_time_to_report() -> None:
    members = make(now=10.0)
    assert not members.settled(12.9)
    assert members.settled(13.0)


def test_a_fresh_coordinator_waits_while_members_of_the_former_one_keep_coming() -> None:
    members = make()
    for second in range(1, 8):
        rejoining = teacher(f"t{second}", links=["s1"])
        members.register(f"t{second}".encode(), rejoining, float(second), WALL)
        assert not members.settled(second + 2.9)
    assert members.settled(10.0)


def test_newcomers_do_not_keep_a_fresh_coordinator_from_settling() -> None:
    members = make()
    members.register(b"t1", teacher(), 2.9, WALL)
    assert members.settled(3.0)


def test_a_fresh_coordinator_does_not_wait_for_ever_for_those_who_come_back() -> None:
    members = make()
    for second in range(1, 40):
        members.register(b"t%d" % second, teacher(f"t{second}", links=["s1"]), float(second), WALL)
    assert members.settled(30.0)


def test_a_vouch_counts_as_a_heartbeat_of_that_very_process_and_of_no_other() -> None:
    members = make()
    its = teacher()
    members.register(Sender(b"t1", "key"), its, 0.0, WALL)
    members.register(b"t2", teacher("t2"), 0.0, WALL)
    beside = Sender(b"t1~voucher", "key")
    live(members, 2.5, "t2")
    members.vouched(beside, Vouch(id="nobody", process=its.process), 2.5)
    members.vouched(beside, Vouch(id="t1", process=its.process), 2.5)
    assert live(members, 5.0, "t2", since=2.5) == []
    members.vouched(beside, Vouch(id="t1", process="another"), 5.0)
    members.vouched(Sender(b"t1~voucher", "a stranger's"), Vouch(id="t1", process=its.process), 5.0)
    assert [name for name, _ in events(live(members, 5.5, "t2", since=5.0))] == ["teacher_lost"]


def test_the_coordinators_own_absence_is_not_its_members_silence() -> None:
    members = make()
    members.register(b"t1", teacher(), 0.0, WALL)
    assert live(members, 10.0, "t1") == []
    assert members.tick(40.0, WALL) == []
    assert events(live(members, 42.5, since=40.0)) == []
    assert [name for name, _ in events(live(members, 43.5, since=42.5))] == ["teacher_lost"]


def test_a_lost_student_is_missing_until_it_returns_or_an_hour_has_passed() -> None:
    members = make()
    for name in ("s1", "s2", "s3"):
        members.register(name.encode(), student(name), 0.0, WALL)
    members.register(b"t1", teacher(), 0.0, WALL)
    members.goodbye(b"s3", Goodbye(id="s3"), WALL)
    live(members, 10.0)
    assert set(members.missing) == {"s1", "s2"}
    members.register(b"s1", student(), 11.0, WALL)
    assert set(members.missing) == {"s2"}
    members.tick(3000.0, WALL)
    assert "s2" in members.missing
    members.tick(3700.0, WALL)
    assert "s2" not in members.missing


def test_losing_sight_of_most_members_at_once_orders_no_disconnects() -> None:
    members = make()
    for n in range(4):
        members.register(b"t%d" % n, teacher(f"t{n}"), 0.0, WALL)
    live(members, 10.0, "t0", "t1", "t2", "t3")
    lost_one = live(members, 14.0, "t1", "t2", "t3", since=10.0)
    assert len(events(lost_one)) == 1 and members.settled(14.0)
    assert len(events(live(members, 17.0, since=14.0))) == 3
    assert not members.settled(17.0)
    assert members.settled(20.0)


def test_a_later_start_of_an_id_takes_the_place_of_an_earlier_one_that_still_runs() -> None:
    """As on a host that was cut off, and is back before its successor is here."""
    members = make()
    members.register(b"old", teacher(process="p1", attempt=1), 0.0, WALL)
    (answer,) = sent(actions := members.register(b"new", teacher(process="p2", attempt=2), 1.0, WALL))
    assert answer[0] == b"new" and isinstance(answer[1], Registered)
    left, joined = events(actions)
    assert left == ("teacher_left", {"id": "t1", "name": "big", "reason": "its next start took its place"})
    assert joined[0] == "teacher_joined"
    members.validate()
    assert sent(members.heartbeat(b"old", Heartbeat(id="t1"), 1.5)) == [(b"old", Unknown())]
    ((_, refused),) = sent(members.register(b"old", teacher(process="p1", attempt=1), 1.6, WALL))
    assert isinstance(refused, Refused) and "is held by pid 7" in refused.reason
    assert members.members["t1"].register.process == "p2"


@pytest.mark.parametrize("attempts", [(0, 0), (2, 2), (2, 1)])
def test_who_is_no_later_start_waits_until_the_id_is_free(attempts: tuple[int, int]) -> None:
    members = make()
    members.register(b"here", teacher(process="p1", attempt=attempts[0]), 0.0, WALL)
    ((_, refused),) = sent(members.register(b"other", teacher(process="p2", attempt=attempts[1]), 1.0, WALL))
    assert isinstance(refused, Refused) and refused.held_for_s == 3.0
    ((_, answer),) = sent(members.register(b"other", teacher(process="p2"), 3.5, WALL))
    assert isinstance(answer, Registered)


def test_the_status_tells_by_what_a_buffer_and_a_silence_are_measured() -> None:
    members = make()
    members.register(b"s1", student(low_watermark=2, high_watermark=8), 0.0, WALL)
    status = StatusView("inc", 0.0, members, Records(), Scaling({}, Rules()), Shedding()).whole(1.0, 0)
    assert (status.members[0].low_watermark, status.members[0].high_watermark) == (2, 8)
    assert status.heartbeat_interval_s == members.heartbeat_interval_s


def refused(members: Membership, now: float) -> list[tuple[str, str, float]]:
    scaling = Scaling({}, Rules())
    status = StatusView("inc", 0.0, members, Records(), scaling, Shedding()).whole(now, 0)
    return [(each.id, each.reason, each.ago_s) for each in status.refused]


def test_the_status_tells_who_was_refused_and_why_until_he_is_let_in() -> None:
    members = make()
    members.register(Sender(b"1"), teacher("t1"), 0.0, WALL)
    other = teacher("t2", process="p2", fingerprint=fingerprint(weights="other"))
    said = [a for a in members.register(Sender(b"2"), other, 1.0, WALL) if isinstance(a, Send)]
    assert isinstance(said[0].message, Refused)
    members.register(Sender(b"3"), teacher("t3", group=""), 2.0, WALL)
    (t2, t3) = refused(members, 5.0)
    assert t2 == ("t2", said[0].message.reason, 4.0) and "weights other instead of" in t2[1]
    assert t3[0] == "t3" and "names no teacher group" in t3[1]
    members.register(Sender(b"4"), teacher("t2", process="p4"), 6.0, WALL)
    assert [each[0] for each in refused(members, 6.0)] == ["t3"]


def test_who_waits_for_an_id_is_not_told_as_refused() -> None:
    members = make()
    members.register(Sender(b"1"), teacher("t1"), 0.0, WALL)
    members.register(Sender(b"2"), teacher("t1", process="p2"), 0.5, WALL)
    assert refused(members, 1.0) == []


def test_no_more_than_the_last_of_many_refusals_are_kept() -> None:
    members = make()
    members.register(Sender(b"1"), teacher("t1"), 0.0, WALL)
    for number in range(200):
        wrong = teacher(f"w{number}", process=f"q{number}", fingerprint=fingerprint(weights="other"))
        members.register(Sender(b"2"), wrong, 1.0, WALL)
    told = [each[0] for each in refused(members, 2.0)]
    assert len(told) == MOST and told[-1] == "w199"


def test_the_page_says_of_each_member_what_it_does_at_a_cost_that_grows_with_their_number() -> None:
    members = make()
    for number in range(100):
        members.register(
            Sender(b"s%d" % number), student(f"s{number}", process=f"p{number}", teachers=["gone"]), 0.0, WALL
        )
    page = json.loads(
        StatusView("inc", 0.0, members, Records(), Scaling({}, Rules()), Shedding()).page(1.0, 0)
    )
    assert {(each["state"], each["tone"]) for each in page["members"]} == {("waits", "wait")}
    explained = [each["notes"] for each in page["members"] if each["notes"]]
    assert explained == MOST_EXPLAINED * [["waits for teacher 'gone': no worker of it is here"]]
    whole = StatusView("inc", 0.0, members, Records(), Scaling({}, Rules()), Shedding()).whole(1.0, 0)
    assert states_of(whole) == [state_of(member, whole) for member in whole.members]


def test_silence_does_not_count_while_members_look_for_a_coordinators_new_key() -> None:
    members = make()
    members.register(Sender(b"t1"), teacher(), 0.0, WALL)
    members.hung_up(until=6.0)
    for tenths in range(88):
        assert events(members.tick(tenths / 10, WALL)) == []
    lost = [event for tenths in range(88, 100) for event in events(members.tick(tenths / 10, WALL))]
    assert [name for name, _ in lost] == ["teacher_lost"]
    members.validate()
