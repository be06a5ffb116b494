"""When a coordinator looks at the runs of nodes, whom it answers then, and what it counts."""

from __future__ import annotations

import msgspec

from edldist.coordinator.rendezvous import FORGET_S, LEASE_S, MAX_TABLE_BYTES, PROBE_S, _table
from edldist.wire.messages import NodeReport
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


def test_a_node_that_wants_more_than_it_allows_is_refused() -> None:
    town = Town()
    (a,) = town.join("a", least=3, most=2)
    town.turn()
    assert a.view is not None and a.view.refused == "it wants at least 3 and at most 2 nodes"
    assert not town.core._runs


def test_a_table_takes_what_fits_with_its_names_and_nothing_of_who_writes_more() -> None:
    town = Town()
    (a,) = town.join("a")

    def report(room_bytes: int) -> NodeReport:
        """Two values and two sums that take so much."""
        rest = room_bytes - (1 + 8) - (2 + 100 + 8) - (1 + 16) - (3 + 16)
        values = {"x": bytes(rest), "yy": bytes(100)}
        return msgspec.structs.replace(a.report, values=values, counts={"n": 1, "nnn": 2})

    all_of_it = report(MAX_TABLE_BYTES)
    assert _table([all_of_it]) == (all_of_it.values, {"n": 1, "nnn": 2})
    assert _table([report(MAX_TABLE_BYTES + 1)]) == ({}, {})
    rest = MAX_TABLE_BYTES - 1_000
    _, counts = _table([report(1_000), report(rest + 1), report(rest)])
    assert counts == {"n": 2, "nnn": 4}, "the second one is left out, and the third not"
