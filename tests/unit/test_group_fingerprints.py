"""One fingerprint for each teacher group: who lays it down, whom it binds, and when it is free again."""

from __future__ import annotations

from typing import Any

import pytest

from edldist.coordinator.members.fingerprints import GroupFingerprints
from edldist.coordinator.members.membership import Action, Membership
from edldist.wire.messages import (
    Goodbye,
    Heartbeat,
    Refused,
    Registered,
    Unknown,
)
from tests.greetings import fingerprint
from tests.unit.members import WALL, events, live, make, sent, teacher


def refusal(actions: list[Action]) -> Refused:
    (refused,) = [message for _, message in sent(actions)]
    assert isinstance(refused, Refused)
    return refused


def joins(members: Membership, peer: bytes, now: float = 0.0, **fields: Any) -> bool:
    """Whether a worker with such fields is taken."""
    actions = members.register(peer, teacher(peer.decode(), process=peer.decode(), **fields), now, WALL)
    return isinstance(sent(actions)[0][1], Registered)


@pytest.mark.parametrize("field", ["model", "weights", "version", "codec"])
def test_the_first_worker_of_a_group_lays_down_what_the_others_are(field: str) -> None:
    members = make()
    assert joins(members, b"t1")
    other = fingerprint(**{field: "other"})
    actions = members.register(b"t2", teacher("t2", process="p2", fingerprint=other), 0.0, WALL)
    refused = refusal(actions)
    assert refused.incompatible
    for words in ("worker t2 is not like worker t1", f"{field} other instead of", "teacher 'big'"):
        assert words in refused.reason
    assert events(actions) == [
        ("teacher_refused", {"id": "t2", "name": "big", "host": "a", "reason": refused.reason})
    ]
    assert list(members.members) == ["t1"]
    assert joins(members, b"t3")
    assert joins(members, b"t4", group="other", fingerprint=other), "another group is another teacher"


def test_a_group_is_free_again_when_its_last_worker_has_left_or_is_lost() -> None:
    members, other = make(), fingerprint(weights="77")
    assert joins(members, b"t1") and joins(members, b"t2")
    members.goodbye(b"t1", Goodbye(id="t1"), WALL)
    assert not joins(members, b"t3", fingerprint=other)
    members.goodbye(b"t2", Goodbye(id="t2"), WALL)
    assert joins(members, b"t3", fingerprint=other)
    assert not joins(members, b"t1")
    for second in range(1, 5):
        members.tick(second, WALL)
    assert not members.members
    assert joins(members, b"t1", 4.0)


def test_the_first_workers_leaving_changes_nothing_for_those_that_stay() -> None:
    members = make()
    assert joins(members, b"t1") and joins(members, b"t2")
    members.goodbye(b"t1", Goodbye(id="t1"), WALL)
    message = teacher("t3", process="p3", fingerprint=fingerprint(weights="77"))
    assert "not like worker t2" in refusal(members.register(b"t3", message, 0.0, WALL)).reason


@pytest.mark.parametrize("again", [{"links": ["s1"]}, {"info": {"rejoin": True}}])
def test_who_was_there_before_a_fresh_coordinator_prevails_over_who_came_to_it_first(
    again: dict[str, Any],
) -> None:
    """The former one had refused t9, which is started again and again."""
    members, other = make(), fingerprint(weights="77")
    assert joins(members, b"t9", fingerprint=other)
    assert joins(members, b"other", group="small", fingerprint=other)
    actions = members.register(b"t1", teacher(**again), 1.0, WALL)
    (answer, refused) = sent(actions)
    assert answer[0] == b"t1" and isinstance(answer[1], Registered)
    assert refused[0] == b"t9" and refused[1].incompatible
    assert "t9 is not like worker t1" in refused[1].reason and "weights 77 instead of" in refused[1].reason
    assert [event for event, _ in events(actions)] == ["teacher_joined", "teacher_left", "teacher_refused"]
    assert [refusal.id for refusal in members.refusals] == ["t9"]
    assert sorted(members.members) == ["other", "t1"]
    members.validate()
    assert not joins(members, b"t9", fingerprint=other) and joins(members, b"t2", **again)
    assert sent(members.heartbeat(b"t9", Heartbeat(id="t9"), 1.5)) == [(b"t9", Unknown())]


def test_outputs_that_one_learns_who_was_there_before_bind_those_that_came_anew() -> None:
    members = make()
    assert joins(members, b"t9", fingerprint=fingerprint(outputs=["feature"]))
    assert joins(members, b"t1", links=["s1"]) and sorted(members.members) == ["t1", "t9"]
    assert joins(members, b"t9", fingerprint=fingerprint(outputs=["feature"]), info={"rejoin": True})
    assert joins(members, b"t1", links=["s1"], fingerprint=fingerprint(outputs=["logits"]))
    assert list(members.members) == ["t1"]


def test_until_everyone_had_time_to_come_back_who_came_first_gives_way_and_then_no_more() -> None:
    for until, gives_way in ((2.5, True), (3.0, False)):
        members = make()
        assert joins(members, b"t9", fingerprint=fingerprint(weights="77"))
        live(members, until, "t9")
        assert joins(members, b"t1", 2.5, links=["s1"]) == gives_way


def test_a_worker_without_a_fingerprint_has_nobody_give_way_when_it_comes_back() -> None:
    members = make()
    assert joins(members, b"t9")
    assert not joins(members, b"t1", links=["s1"], fingerprint=None) and list(members.members) == ["t9"]


def provisional(**versions: str) -> GroupFingerprints:
    """Workers of a group that came anew, each of a version."""
    group = GroupFingerprints()
    for name, version in versions.items():
        its = fingerprint(version=version, weights=f"w{version}")
        group.joined(teacher(name, fingerprint=its), provisional=True)
    return group


def test_versions_that_may_stand_beside_it_need_not_give_way() -> None:
    group = provisional(a="1", b="2")
    back = teacher("t1", fingerprint=fingerprint(version="2", weights="w2"))
    assert group.giving_way(back, any_version=True) == []
    assert group.giving_way(back) == ["a"]
    other = teacher("t1", fingerprint=fingerprint(version="2", weights="x"))
    assert group.giving_way(other, any_version=True) == ["b"], "of one version there is one model"


def test_another_version_is_objected_to_unless_it_is_said_that_it_may_come() -> None:
    group, newer = provisional(a="1"), teacher("b", fingerprint=fingerprint(version="2", weights="w2"))
    assert group.objection(newer) is not None and group.objection(newer, lambda: True) is None


def test_who_left_and_came_back_is_there_as_one_that_was_there_before() -> None:
    group = provisional(a="1")
    its = teacher("a", fingerprint=fingerprint(version="1", weights="w1"))
    group.left(its)
    group.joined(its)
    assert not group.is_provisional("a")


def test_nobody_gives_way_to_one_that_comes_back_to_another_teacher() -> None:
    other = fingerprint(weights="77")
    settled = make()
    assert joins(settled, b"t9", fingerprint=other)
    live(settled, 3.5, "t9")
    assert not joins(settled, b"t1", 3.5, links=["s1"]) and list(settled.members) == ["t9"]
    both = make()
    assert joins(both, b"t9", fingerprint=other, links=["s1"])
    assert not joins(both, b"t1", links=["s1"]), "both were there: which is right nobody knows"


def test_a_worker_alone_in_its_group_may_come_back_as_another_teacher() -> None:
    members, other = make(), fingerprint(weights="77")
    assert joins(members, b"t1") and joins(members, b"t1", fingerprint=other)
    assert not joins(members, b"t2")
    assert joins(members, b"t2", fingerprint=other)


def test_outputs_that_a_worker_has_learnt_bind_the_group_from_then_on() -> None:
    members = make()
    assert joins(members, b"t1") and joins(members, b"t2", fingerprint=fingerprint(outputs=["logits"]))
    assert joins(members, b"t3"), "it does not know its outputs yet"
    assert not joins(members, b"t4", fingerprint=fingerprint(outputs=["feature"]))


def test_a_worker_without_a_fingerprint_is_refused() -> None:
    refused = refusal(make().register(b"t1", teacher(fingerprint=None), 0.0, WALL))
    assert refused.incompatible and "has no fingerprint" in refused.reason
