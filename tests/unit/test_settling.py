"""Until when a coordinator leaves links alone: while it is fresh, or has lost sight of most members."""

from __future__ import annotations

import pytest

from edldist.coordinator.members.membership import MOST_GROUPS_TOLD, Membership
from edldist.wire.messages import Heartbeat, TeachersHere
from tests.unit.members import WALL, events, live, make, sent, student, teacher


def workers(number: int) -> Membership:
    members = make()
    for n in range(number):
        members.register(b"t%d" % n, teacher(f"t{n}"), 0.0, WALL)
    live(members, 10.0, *(f"t{n}" for n in range(number)))
    return members


@pytest.mark.parametrize(("here", "silent", "settled"), [(1, 1, True), (4, 2, True), (3, 2, False)])
def test_more_than_half_of_several_members_are_most_of_them(here: int, silent: int, settled: bool) -> None:
    members = workers(here)
    heard = [f"t{n}" for n in range(silent, here)]
    assert len(events(live(members, 14.0, *heard, since=10.0))) == silent
    assert members.settled(14.0) == settled


@pytest.mark.parametrize(("t1_heard_at", "settled"), [(11.4, False), (11.6, True)])
def test_those_that_are_about_to_be_lost_count_among_the_silent(t1_heard_at: float, settled: bool) -> None:
    members = workers(3)
    for name, at in (("t1", t1_heard_at), ("t2", 12.9)):
        members.heard(name.encode(), at)
    assert len(events(live(members, 13.0, since=10.0))) == 1
    assert members.settled(13.0) == settled, "silent for half of the time that it takes to be lost"


def test_a_coordinator_that_hears_seldom_waits_for_two_heartbeats() -> None:
    members = Membership("inc", heartbeat_interval_s=5.0, heartbeat_ttl_s=6.0, now=100.0)
    assert not members.settled(109.9) and members.settled(110.0)


def test_who_comes_back_when_all_is_settled_unsettles_nothing() -> None:
    members = make()
    members.register(b"t1", teacher(links=["s1"]), 3.0, WALL)
    assert members.settled(3.0) and not members.inherits
    members.register(b"t2", teacher("t2", links=["s1"]), 4.0, WALL)
    assert members.settled(4.0)


def test_no_more_groups_are_told_than_fit_a_message() -> None:
    members = make()
    members.register(b"s1", student(teachers=["wanted"]), 0.0, WALL)
    for n in reversed(range(MOST_GROUPS_TOLD + 6)):
        members.register(b"t%d" % n, teacher(f"t{n}", group=f"g{n:03}"), 0.0, WALL)
    ((_, told),) = sent(members.heartbeat(b"s1", Heartbeat(id="s1"), 1.0))
    assert told == TeachersHere(groups=[f"g{n:03}" for n in range(MOST_GROUPS_TOLD)])


def test_what_a_worker_computes_on_is_recorded_where_it_says_so() -> None:
    ((_, fields),) = events(make().register(b"t1", teacher(info={"device": "cuda:0"}), 0.0, WALL))
    assert fields["device"] == "cuda:0" and "rejoined" not in fields


@pytest.mark.parametrize(("step_s", "lost_at"), [(1.4, 4.2), (1.6, None)])
def test_only_a_stop_of_the_coordinator_for_half_a_ttl_is_no_silence(
    step_s: float, lost_at: float | None
) -> None:
    members = make()
    members.register(b"t1", teacher(), 0.0, WALL)
    ticks = [round(n * step_s, 1) for n in range(1, 9)]
    lost = [at for at in ticks if events(members.tick(at, WALL))]
    assert lost == ([] if lost_at is None else [lost_at])
