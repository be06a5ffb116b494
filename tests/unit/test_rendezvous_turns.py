"""When a coordinator looks at the runs of nodes, whom it answers then, and what it counts."""

from __future__ import annotations

from edldist.coordinator.rendezvous import FORGET_S, LEASE_S, PROBE_S
from tests.unit.town import Town, formed


def test_who_says_something_new_is_answered_though_nothing_changes_and_the_others_are_not() -> None:
    town, (a, b) = formed("a", "b")
    b.views.clear()
    a.tell()
    b.next_at = town.now + 1.0
    town.turn()
    assert a.view is not None and a.view.seq == a.report.seq
    assert not b.views


def test_who_reports_twice_before_anybody_decides_is_answered() -> None:
    town = Town()
    (a,) = town.join("a")
    for _ in range(2):
        town.core.report(b"a", a.report, town.now)
    assert [send.peer for send in town.core.decide(town.now)] == [b"a"]


def test_each_generation_that_becomes_the_newest_is_counted_formed_here_or_elsewhere() -> None:
    town = Town()
    assert town.core.generations == 0
    town, (a,) = formed("a")
    assert town.core.generations == 1
    a.rejoin()
    town.run(1)
    assert town.core.generations == 2 and a.generation.token.endswith(".2"), "no two have one name"
    town.restart(settled=True)
    a.next_at = town.now
    town.turn()
    assert town.core.generations == 1


def test_the_next_decision_is_due_when_the_first_of_all_runs_has_one() -> None:
    town = Town()
    town.join("a", run="one", least=2)
    town.turn()
    due_at = town.core.due_at()
    town.now += 0.5
    town.join("b", run="other", least=2)
    town.turn()
    assert town.core.due_at() == due_at == town.now - 0.5 + LEASE_S
    town, (a, b) = formed("a", "b")
    a.rejoin()
    town.turn()
    assert town.core.due_at() == town.now + PROBE_S, "b holds up a"


def test_a_run_without_anybody_is_looked_at_once_more_to_be_forgotten() -> None:
    town, (a,) = formed("a")
    a.alive = False
    town.run(LEASE_S + 1)
    due_at = town.core.due_at()
    assert FORGET_S - 2 * LEASE_S < due_at - town.now < FORGET_S + 2
    town.core.decide(due_at - 2)
    assert "r" in town.core._runs
    town.core.decide(due_at)
    assert not town.core._runs and town.core.due_at() == float("inf")
