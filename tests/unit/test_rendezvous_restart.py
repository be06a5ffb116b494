"""A coordinator that dies or stands still restarts no group of nodes, and forms no second one beside it."""

from __future__ import annotations

import pytest

from edldist.coordinator.rendezvous import (
    FIRST_CALL_S,
    LEASE_S,
    NEXT_CALL_S,
    SETTLE_S,
)
from edldist.wire.messages import Generation, GroupNode, RunView
from tests.unit.town import Town, formed


def test_a_fresh_coordinator_restarts_nobody_and_forms_no_second_group() -> None:
    town, (a, b) = formed("a", "b")
    known = a.generation
    town.there = False
    town.run(30)
    town.restart()
    (c,) = town.join("c")
    a.next_at = b.next_at = town.now + SETTLE_S - 0.2  # it comes before anybody else has a chance to report
    town.run(SETTLE_S + 2)
    assert a.generation.same(known) and b.generation.same(known)
    assert c.report.state == "joining"
    assert a.disturbed and b.disturbed, "c waits, as it would have without the death"
    a.rejoin()
    b.rejoin()
    town.run(NEXT_CALL_S + 0.2)
    assert town.members() == ["a", "b", "c"] and a.generation.number == known.number + 1


def test_a_fresh_coordinator_believes_that_nodes_live_of_which_it_only_heard() -> None:
    town, (a, b) = formed("a", "b")
    town.restart(settled=True)
    b.next_at = town.now + 2.5  # its connection takes that long to come back
    a.rejoin()
    town.run(2.4)
    assert a.report.state == "joining"
    town.run(0.2)
    assert b.view is not None and b.disturbed
    b.rejoin()
    town.run(NEXT_CALL_S + 0.2)
    assert town.members() == ["a", "b"]


def test_ranks_stay_where_they_were_though_a_fresh_coordinator_hears_the_last_one_first() -> None:
    town, agents = formed("a", "b", "c")
    town.restart(settled=True)
    for number, agent in enumerate(reversed(agents)):
        agent.next_at = town.now + 0.1 * number
    town.run(1)
    for agent in agents:
        agent.rejoin()
    town.run(NEXT_CALL_S + 0.2)
    assert town.members() == ["a", "b", "c"]


def test_nodes_that_a_fresh_coordinator_never_hears_are_gone_after_a_lease() -> None:
    town, (a, b) = formed("a", "b")
    b.alive = False
    town.restart()
    a.next_at = town.now
    town.run(LEASE_S - 0.2)
    assert a.view is not None and not a.view.whole and not a.view.gone
    town.run(0.4)
    assert a.view.whole and a.view.gone == ["b"]


def test_a_fresh_coordinator_that_stood_still_goes_on_believing_in_them() -> None:
    town, (a, b) = formed("a", "b")
    town.restart(settled=True)
    b.next_at = town.now + 100
    a.next_at = town.now
    town.run(1.0)
    town.now += 60
    a.rejoin()
    b.next_at = town.now + 1.0
    town.run(0.9)
    assert a.report.state == "joining"
    town.run(0.2)
    assert b.disturbed


def test_a_generation_that_was_formed_beside_another_gives_way_to_it() -> None:
    town, (a, b) = formed("a", "b")
    a.next_at = b.next_at = town.now + 20  # cut off for longer than a fresh coordinator waits
    town.restart()
    (c,) = town.join("c")
    town.run(SETTLE_S + FIRST_CALL_S + 1)
    assert town.agents["c"].report.state == "member"
    town.run(20)
    assert c.disturbed and not a.generation.same(c.generation)
    assert not a.disturbed and not b.disturbed
    c.rejoin()
    town.run(0.2)
    assert a.disturbed and b.disturbed


def test_a_coordinator_that_dies_while_it_tells_of_a_generation_completes_it_in_its_next_life() -> None:
    town = Town()
    a, b = town.join("a", "b", most=2)
    for agent in (a, b):
        town.core.report(agent.name.encode(), agent.report, town.now)
    heard = [send for send in town.core.decide(town.now) if send.peer == b"a"]
    assert isinstance(heard[0].message, RunView)
    a.hear(heard[0].message)
    town.restart()
    town.run(2)
    assert town.members() == ["a", "b"] and a.generation.same(b.generation)


@pytest.mark.parametrize("away_s", [LEASE_S + 1, 60.0])
def test_a_coordinator_that_stood_still_takes_nobody_for_dead(away_s: float) -> None:
    town, (a, b) = formed("a", "b")
    a.rejoin()
    town.run(0.1)
    town.now += away_s  # suspended; what waits in its socket comes over several turns
    a.next_at, b.next_at = town.now, town.now + 1.0
    town.run(0.9)
    assert a.report.state == "joining"
    town.run(0.2)
    assert b.report.state == "member" and b.disturbed


def test_a_coordinator_that_stood_still_knows_all_nodes_and_gives_their_run_to_no_other_job() -> None:
    town, (a, b) = formed("a", "b")
    town.now += 60.0
    a.next_at = b.next_at = town.now + 0.5
    (other,) = town.join("other", job="other.py")
    town.core.report(b"other", other.report, town.now)  # before anything is decided
    other.next_at = town.now + 100
    town.run(0.2)
    assert other.view is not None and "run r is of another job" in other.view.refused
    assert list(town.core._runs["r"].nodes) == ["a", "b"]


def test_a_coordinator_that_stood_still_forgets_no_silence_of_before() -> None:
    town, (a, b) = formed("a", "b")
    b.next_at = float("inf")
    town.run(2.0)
    away_s = 60.0
    town.now += away_s
    a.next_at = town.now
    gone_at = town.core._runs["r"].nodes["b"].last_seen + away_s + LEASE_S
    town.run(gone_at - town.now - 0.2)
    assert a.view is not None and not a.view.gone
    town.run(0.4)
    assert a.view.gone == ["b"]


def test_a_fresh_coordinator_that_stood_still_waits_no_longer_than_it_would_have() -> None:
    town, (a, b) = formed("a", "b")
    b.alive = False
    town.restart(settled=True)
    a.next_at = town.now
    town.run(1.0)
    away_s = 60.0
    town.now += away_s
    a.next_at = town.now
    gone_at = town.core._runs["r"].learned_at + away_s + LEASE_S
    town.run(gone_at - town.now - 0.2)
    assert a.view is not None and not a.view.gone
    town.run(0.4)
    assert a.view.gone == ["b"]


def test_a_fresh_coordinator_that_hears_from_one_that_is_done_looks_for_the_others_after_a_lease() -> None:
    town, (a, _) = formed("a", "b")
    a.tell(state="finished")
    town.restart(settled=True)
    town.core.report(b"a", a.report, town.now)
    town.core.decide(town.now)
    assert town.core.due_at() == town.now + LEASE_S


def test_of_two_generations_with_one_number_the_first_that_a_fresh_coordinator_hears_of_stays() -> None:
    town, (a,) = formed("a")
    town.restart(settled=True)
    a.next_at = town.now
    town.turn()
    nodes = [GroupNode(process="c", host="10.0.0.9", port=1000, ranks=1)]
    (c,) = town.join("c", state="member", generation=Generation(number=1, token="other", nodes=nodes))
    town.run(2.5)
    assert c.disturbed and not a.disturbed


def test_what_waited_in_a_queue_does_not_take_back_what_was_said_since() -> None:
    town, (a, _) = formed("a", "b")
    old = a.report
    a.rejoin()
    town.run(0.1)
    town.core.report(b"a", old, town.now)
    town.core.decide(town.now)
    town.agents["b"].rejoin()
    town.run(NEXT_CALL_S + 0.2)
    assert town.members() == ["a", "b"]
