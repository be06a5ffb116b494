"""Members that register once more: the same process, or another one in its place."""

from __future__ import annotations

import pytest

from edldist.coordinator.members.membership import MISSING_S, Membership, Record, Send
from edldist.wire.messages import Goodbye, Heartbeat, Register, Registered
from tests.greetings import fingerprint
from tests.unit.members import WALL, events, make, student, teacher


def test_members_of_a_process_are_told_in_the_order_of_their_ids() -> None:
    members, names = make(), [f"s{n}" for n in range(8)]
    for name in reversed(names):
        members.register(name.encode(), student(name, process="one"), 0.0, WALL)
    members.register(b"t1", teacher(), 0.0, WALL)
    assert [each.register.id for each in members.of_processes(["one", "nobody"])] == names


def test_who_took_the_place_of_one_that_was_just_heard_did_not_lose_it() -> None:
    members = make()
    members.register(b"old", teacher(process="p1"), 100.0, WALL)
    actions = members.register(b"new", teacher(process="p2", attempt=1), 102.0, WALL)
    assert [name for name, _ in events(actions)] == ["teacher_left", "teacher_joined"]


def test_a_registration_is_answered_before_anything_is_recorded_of_it() -> None:
    members = make()
    members.register(b"old", teacher(process="p1"), 0.0, WALL)
    answer, *rest = members.register(b"new", teacher(process="p2", attempt=1), 1.0, WALL)
    assert isinstance(answer, Send) and isinstance(answer.message, Registered)
    assert len(rest) == 2 and all(isinstance(each, Record) for each in rest)


def test_a_worker_that_goes_to_another_group_leaves_the_former_one() -> None:
    members = make()
    members.register(b"t1", teacher(), 0.0, WALL)
    members.register(b"t1", teacher(group="small"), 1.0, WALL)
    other = teacher("t2", process="p2", fingerprint=fingerprint(weights="other"))
    (answer, joined) = members.register(b"t2", other, 2.0, WALL)
    assert isinstance(answer.message, Registered) and joined.event.event == "teacher_joined"


def takes(members: Membership, worker: Register) -> bool:
    return isinstance(members.register(worker.id.encode(), worker, 1.0, WALL)[0].message, Registered)


OLDER = fingerprint(version="1")
NEWER = fingerprint(version="2", weights="newer")


@pytest.mark.parametrize(
    ("rolling", "taken"),
    [([["big"], ["big", "small"]], True), ([["big"], []], False), ([["small"]], False), ([], False)],
)
def test_a_newer_version_comes_beside_an_older_one_where_all_students_take_both(
    rolling: list[list[str]], taken: bool
) -> None:
    members = make()
    assert takes(members, teacher(fingerprint=OLDER))
    for number, each in enumerate(rolling):
        rank = student(f"s{number}", process=f"q{number}", rolling=each)
        members.register(b"s%d" % number, rank, 0.0, WALL)
    other = student("other", process="other", teachers=["small"])
    members.register(b"other", other, 0.0, WALL)
    assert takes(members, teacher("t2", process="p2", fingerprint=NEWER)) == taken


def test_workers_of_several_versions_come_back_to_a_fresh_coordinator_before_their_students() -> None:
    members = make()
    assert takes(members, teacher(fingerprint=OLDER, links=["s1"]))
    assert takes(members, teacher("t2", process="p2", fingerprint=NEWER, links=["s1"]))
    assert not takes(members, teacher("t3", process="p3", fingerprint=fingerprint(model="x"), links=["s1"]))


def test_a_student_is_missing_for_an_hour_however_long_the_coordinator_has_been_there() -> None:
    members = make(now=10_000.0)
    members.register(b"s1", student(), 10_000.0, WALL)
    lost_at = next(now for now in range(10_000, 10_010) if events(members.tick(float(now), WALL)))
    for at, missing in ((lost_at, ["s1"]), (lost_at + MISSING_S - 1, ["s1"]), (lost_at + MISSING_S + 1, [])):
        members.tick(at, WALL)
        assert list(members.missing) == missing


def test_what_a_student_leaves_behind_are_its_figures_and_not_its_words() -> None:
    members = make()
    members.register(b"s1", student(), 0.0, WALL)
    members.heartbeat(b"s1", Heartbeat(id="s1", stats={"done": 41, "waits": "for teacher"}), 1.0)
    ((_, fields),) = events(members.goodbye(b"s1", Goodbye(id="s1"), WALL))
    assert fields["done"] == 41 and "waits" not in fields


@pytest.mark.parametrize("host", ["a", ""])
def test_who_is_refused_an_id_learns_who_has_it_and_since_when_it_was_not_heard(host: str) -> None:
    members = make()
    members.register(b"p1", teacher(host=host), 100.0, WALL)
    ((answer),) = members.register(b"p2", teacher(process="p9"), 100.5, WALL)
    words = f"is held by pid 7 on {host or 'an unnamed host'}, heard 0.5 s ago; start with another id"
    assert words in answer.message.reason and "wait 3 s (heartbeat_ttl_s)" in answer.message.reason


def test_how_long_a_lost_one_was_silent_is_recorded() -> None:
    members = make(now=100.0)
    members.register(b"t1", teacher(), 100.0, WALL)
    lost = [event for tenths in range(1000, 1040) for event in events(members.tick(tenths / 10, WALL))]
    assert lost == [("teacher_lost", {"id": "t1", "name": "big", "silent_s": 3.0})]


def test_a_group_without_a_worker_is_told_to_nobody() -> None:
    members = make()
    members.register(b"s1", student(teachers=["other"]), 0.0, WALL)
    members.register(b"t1", teacher(), 0.0, WALL)
    assert events(members.goodbye(b"t1", Goodbye(id="t1"), WALL))
    assert members.heartbeat(b"s1", Heartbeat(id="s1"), 1.0) == []


def test_a_worker_that_is_started_again_is_counted_and_one_that_registers_again_is_not() -> None:
    members = make()
    members.register(b"t1", teacher(), 0.0, WALL)
    members.goodbye(b"t1", Goodbye(id="t1"), WALL)
    for _ in range(2):
        members.register(b"t1", teacher(process="next", attempt=1), 1.0, WALL)
    assert members.lives.restarts()["teacher"] == 1
    assert members.lives.gone(1.0) == [], "it is back"


def test_heartbeats_tell_how_fast_a_member_was_in_the_last_seconds() -> None:
    members = make()
    members.register(b"t1", teacher(), 0.0, WALL)
    for second in range(3):
        members.heartbeat(b"t1", Heartbeat(id="t1", stats={"samples": 40 * second}), float(second))
    assert members.members["t1"].recent.value == 40.0
