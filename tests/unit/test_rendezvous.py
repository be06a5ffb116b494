"""Where student nodes meet: generations form, change and end, whoever dies, the coordinator included."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist.coordinator.rendezvous import (
    FIRST_CALL_S,
    FORGET_S,
    LEASE_S,
    MAX_NODES,
    MAX_RUNS,
    NEXT_CALL_S,
    PROBE_S,
    UNREACHABLE_S,
)
from edldist.ranks.placement import GENERATION_VARIABLE, generation_name, term
from edldist.wire.messages import (
    MAX_NAME,
    MAX_TEXT,
    Generation,
    GroupNode,
    RunView,
    decode,
    encode,
)
from tests.unit.town import STEP_S, Town, formed


def test_nodes_that_come_together_form_one_generation_in_the_order_of_their_coming() -> None:
    town, (a, b, c) = formed("a", "b", "c")
    assert [node.process for node in a.generation.nodes] == ["a", "b", "c"]
    assert a.generation.same(b.generation) and b.generation.same(c.generation)
    town.run(60)
    assert not any(agent.disturbed or any(view.gone for view in agent.views) for agent in (a, b, c))


def test_it_is_known_which_generations_of_a_run_are_over() -> None:
    town, _ = formed("a", "b")
    before = town.core.generations
    assert not town.core.over("r", 1)
    town.join("c")
    for agent in list(town.agents.values()):
        agent.rejoin()
    town.run(2)
    assert town.core.generations > before
    assert town.core.over("r", 1) == "generation 1 of run r is over: 2 followed it"
    assert not town.core.over("r", 2)
    assert not town.core.over("r", 3), "this coordinator has not heard of it yet"
    assert not town.core.over("another", 1) and not town.core.over("", 0)


def test_the_generation_of_a_run_with_a_long_name_is_known_by_what_its_ranks_call_it() -> None:
    town = Town()
    (agent,) = town.join("a", run="r" * 150, most=1)
    town.run(1)
    agent.rejoin()
    town.run(1)
    run, number = term({GENERATION_VARIABLE: generation_name("r" * 150, 1, "a")})
    assert "generation 1 of run rrr" in town.core.over(run, number)


def test_a_node_that_comes_a_little_later_is_in_the_first_generation_too() -> None:
    town = Town()
    (a,) = town.join("a")
    town.run(FIRST_CALL_S - 0.2)
    town.join("b")
    town.run(0.4)
    assert town.members() == ["a", "b"] and a.generation.number == 1


def test_the_call_begins_anew_when_there_were_too_few_again() -> None:
    town = Town()
    _, b = town.join("a", "b", least=2)
    town.run(FIRST_CALL_S / 2)
    b.tell(state="left")
    town.run(0.1)
    b.alive = False
    town.run(5)
    town.join("c", least=2)
    town.run(FIRST_CALL_S / 2)
    town.join("d", least=2)
    town.run(FIRST_CALL_S)
    assert town.members() == ["a", "c", "d"]


def test_a_quiet_run_costs_one_answer_a_report() -> None:
    town, (a, b) = formed("a", "b")
    a.views.clear()
    b.views.clear()
    b.next_at = a.next_at + 0.5
    town.run(20)
    assert 18 <= len(a.views) <= 21 and 18 <= len(b.views) <= 21
    assert town.core.due_at() > town.now


def test_a_run_that_is_full_waits_for_nobody() -> None:
    town = Town()
    town.join("a", "b", most=2)
    town.run(0.2)
    assert town.members() == ["a", "b"]


def test_too_few_nodes_wait_until_there_are_enough() -> None:
    town = Town()
    (a,) = town.join("a", least=2)
    town.run(60)
    assert a.report.state == "joining"
    town.join("b", least=2)
    town.run(FIRST_CALL_S + 0.2)
    assert town.members() == ["a", "b"]


def test_a_node_that_joins_later_makes_the_others_form_the_next_generation() -> None:
    town, (a, b) = formed("a", "b")
    (c,) = town.join("c")
    town.run(0.1)
    assert a.disturbed and b.disturbed and a.view is not None and a.view.waiting == 1
    a.rejoin()
    town.run(5.0)
    assert a.report.state == c.report.state == "joining", "b still trains in the former generation"
    b.rejoin()
    town.run(NEXT_CALL_S + 0.2)
    assert town.members() == ["a", "b", "c"], "ranks stay where they were"
    assert a.generation.number == 2


def test_a_full_generation_is_not_disturbed_by_more_nodes() -> None:
    town, (a, b) = formed("a", "b", most=2)
    (c,) = town.join("c", most=2)
    town.run(30)
    assert not a.disturbed and not b.disturbed and c.report.state == "joining"
    b.alive = False
    town.run(LEASE_S + 1)
    assert a.disturbed
    a.rejoin()
    town.run(NEXT_CALL_S + 0.2)
    assert town.members() == ["a", "c"]


def test_a_killed_node_holds_up_the_others_as_long_as_a_connection_may_take_to_come_back() -> None:
    town, (a, b, _) = formed("a", "b", "c")
    town.agents["c"].alive = False
    a.rejoin()
    b.rejoin()
    town.run(UNREACHABLE_S - 0.1)
    assert a.report.state == "joining"
    town.run(0.1 + NEXT_CALL_S + 3 * STEP_S)
    assert town.members() == ["a", "b"]


def test_a_node_that_is_killed_while_others_wait_for_it_is_found_out_as_soon() -> None:
    town, (a, b) = formed("a", "b")
    a.rejoin()
    town.run(1.5)
    b.next_at = town.now
    town.turn()
    b.alive = False
    town.run(UNREACHABLE_S + PROBE_S + NEXT_CALL_S + 0.2)
    assert town.members() == ["a"]


def test_a_node_that_is_only_silent_holds_them_up_for_a_lease() -> None:
    town, (a, b) = formed("a", "b")
    b.next_at = float("inf")  # frozen: its connection stands
    a.rejoin()
    town.run(LEASE_S - 1.1)
    assert a.report.state == "joining"
    town.run(1.2 + NEXT_CALL_S)
    assert town.members() == ["a"] and a.generation.number == 2
    b.next_at = town.now
    town.run(0.1)
    assert b.disturbed and not b.generation.same(a.generation), "it finds that there is a newer one"
    assert not a.disturbed
    b.rejoin()
    town.run(0.1)
    assert a.disturbed


def test_a_node_that_says_that_it_leaves_holds_up_nobody() -> None:
    town, (a, b) = formed("a", "b")
    b.tell(state="left")
    town.run(0.1)
    b.alive = False
    assert "b" not in town.core._runs["r"].nodes and b"b" not in town.core._peers
    a.rejoin()
    town.run(NEXT_CALL_S + 0.2)
    assert town.members() == ["a"]


def test_ranks_that_failed_on_one_node_make_all_form_the_next() -> None:
    town, (a, b) = formed("a", "b", most=2)
    b.rejoin()
    town.run(0.1)
    assert a.disturbed
    a.rejoin()
    town.run(NEXT_CALL_S + 0.2)
    assert town.members() == ["a", "b"] and a.generation.number == 2


def test_a_node_that_dies_before_it_knows_of_its_rank_is_gone_like_any_other() -> None:
    town = Town()
    a, b = town.join("a", "b", most=2)
    town.core.report(b"a", a.report, town.now)
    town.core.report(b"b", b.report, town.now)
    assert len(town.core.decide(town.now)) == 2
    b.alive = False  # and never heard of it
    town.run(0.2)
    assert town.members() == ["a"] and len(a.generation.nodes) == 2
    a.rejoin()
    town.run(LEASE_S + NEXT_CALL_S + 0.2)
    assert town.members() == ["a"] and a.generation.number == 2


def test_nobody_with_another_key_speaks_for_a_node() -> None:
    town, (a, b) = formed("a", "b", most=2)
    for node in (a, b):
        forged = msgspec.structs.replace(node.report, seq=node.report.seq + 9, state="finished")
        town.core.report(b"thief", forged, town.now, "bob")
    refused = [send.message for send in town.core.decide(town.now) if send.peer == b"thief"]
    assert len(refused) == 2
    assert all(isinstance(each, RunView) and "is here with another key" in each.refused for each in refused)
    town.run(0.1)
    assert town.members() == ["a", "b"] and not a.view.closed and not b.view.closed


# --- the end of a run -----------------------------------------------------------------------------


def test_a_run_is_over_when_all_are_done_and_whoever_comes_is_told_so() -> None:
    town, (a, b) = formed("a", "b", most=3)
    town.run(FORGET_S, step_s=0.5)
    (late,) = town.join("late", most=3)
    a.tell(state="finished")
    town.run(0.1)
    assert late.view is not None and not late.view.closed
    b.tell(state="finished")
    town.run(0.1)
    a.alive = b.alive = False
    (latest,) = town.join("latest", most=3)
    town.run(1)
    assert late.view.closed and latest.view is not None and latest.view.closed
    assert late.report.state == latest.report.state == "joining"
    late.alive = latest.alive = False
    town.run(FORGET_S - LEASE_S - 10, step_s=1.0)
    (later,) = town.join("later", most=3)
    town.run(1)
    assert later.view is not None and later.view.closed, "it is remembered for a while"
    later.alive = False
    town.run(FORGET_S + LEASE_S + 10, step_s=1.0)
    (new,) = town.join("new", most=3)
    town.run(FIRST_CALL_S + 0.2)
    assert new.report.state == "member"
    assert not new.generation.same(a.report.generation), "though both are the first of a run of this name"


def test_a_node_whose_ranks_failed_at_the_very_end_does_its_part_alone() -> None:
    town, (a, b) = formed("a", "b")
    a.tell(state="finished")
    b.rejoin()
    town.run(NEXT_CALL_S + 0.2)
    assert b.report.state == "member" and [node.process for node in b.generation.nodes] == ["b"]


def test_a_node_that_cannot_go_on_alone_is_told_that_the_run_has_ended() -> None:
    town, (a, b) = formed("a", "b", least=2)
    a.tell(state="finished")
    b.rejoin()
    town.run(0.1)
    assert b.view is not None and b.view.closed


# --- the table ------------------------------------------------------------------------------------


def test_the_table_of_a_generation_adds_up_what_its_nodes_wrote() -> None:
    town, (a, b) = formed("a", "b")
    (c,) = town.join("c")
    a.tell(values={"x": b"1"}, counts={"n": 1})
    b.tell(values={"y": b"2"}, counts={"n": 2})
    town.run(0.1)
    for agent in (a, b):
        assert agent.view is not None
        assert (agent.view.values, agent.view.counts) == ({"x": b"1", "y": b"2"}, {"n": 3})
    assert c.view is not None and not c.view.values and not c.view.counts
    for agent in (a, b):
        agent.rejoin()
    town.run(NEXT_CALL_S + 0.2)
    assert a.view is not None and not a.view.values and not a.view.counts


def test_a_fresh_coordinator_says_that_a_sum_is_not_whole_until_everyone_told_his_part() -> None:
    town, (a, b) = formed("a", "b")
    a.tell(counts={"n": 1})
    town.run(0.1)
    town.restart(settled=True)
    b.next_at = town.now + 2.0
    a.tell(counts={"n": 2})
    town.run(1.0)
    assert a.view is not None and a.view.counts == {"n": 2} and not a.view.whole
    b.tell(counts={"n": 5})
    town.run(0.1)
    assert a.view.counts == {"n": 7} and a.view.whole


def test_nodes_that_are_gone_are_named_to_those_who_may_wait_for_them() -> None:
    town, (a, b, c) = formed("a", "b", "c")
    b.alive = False
    c.rejoin()
    town.run(LEASE_S + 1)
    assert a.view is not None and sorted(a.view.gone) == ["b", "c"]


# --- strangers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [{"job": "other.py"}, {"least": 2}, {"most": 3}])
def test_another_job_with_the_same_run_id_is_refused_with_both_named(other: dict[str, Any]) -> None:
    town, (a,) = formed("a")
    (b,) = town.join("b", **other)
    town.run(0.1)
    assert b.view is not None and "'train.py' on 1:4 nodes" in b.view.refused
    assert f"{b.report.job!r} on {b.report.least}:{b.report.most}" in b.view.refused
    assert "--run-id" in b.view.refused
    assert not a.disturbed


def test_a_run_whose_nodes_are_all_gone_gives_way_to_another_job() -> None:
    town, (a,) = formed("a")
    a.alive = False
    town.run(LEASE_S + 1)
    (b,) = town.join("b", job="other.py")
    town.run(FIRST_CALL_S + 0.2)
    assert b.report.state == "member"


def test_a_run_takes_so_many_nodes_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edldist.coordinator.rendezvous.MAX_NODES", 2)
    town, (a, b) = formed("a", "b")
    (c,) = town.join("c")
    town.run(2)
    assert c.view is not None and "takes no more" in c.view.refused
    assert a.view is not None and not a.view.refused and not a.disturbed and not b.disturbed


def test_a_stranger_that_cannot_be_reached_is_nobodys_matter() -> None:
    town, (a,) = formed("a")
    town.core.unreachable(b"stranger", town.now)
    town.run(5)
    assert not a.disturbed


def test_a_node_that_others_cannot_reach_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    here = GroupNode(process="a", host="127.0.0.1", port=1000, ranks=1)
    town = Town()
    town.join("a", node=here)
    town.join("b")
    town.run(FIRST_CALL_S + 0.2)
    assert "127.0.0.1 is an address of its own host only" in caplog.text
    caplog.clear()
    formed("a", "b")
    assert "EDLDIST_ADVERTISE" not in caplog.text


def test_runs_have_nothing_to_do_with_each_other() -> None:
    town = Town()
    (a,), (b,) = town.join("a", run="one"), town.join("b", run="other", job="other.py")
    town.run(FIRST_CALL_S + 0.2)
    assert len(a.generation.nodes) == len(b.generation.nodes) == 1


def test_the_largest_view_fits_a_message() -> None:
    town = Town()
    names = [f"{number:064}" for number in range(MAX_NODES)]
    nodes = [GroupNode(process=name, host="h" * MAX_NAME, port=65_535, ranks=1 << 60) for name in names]
    generation = Generation(number=1 << 53, token="t" * MAX_NAME, nodes=nodes)
    table = {f"{number:0256}": b"x" * 700 for number in range(60)}
    (first, second) = town.join(
        *names[:2], run="r" * MAX_NAME, state="member", generation=generation, values=table, least=MAX_NODES
    )
    town.run(LEASE_S + 1)
    assert first.view is not None and len(first.view.gone) == MAX_NODES - 2
    assert first.view.values == table, "and nothing more: the second one's would be too much"
    assert decode(encode(first.view)) == first.view
    (late,) = town.join("late", run="r" * MAX_NAME, job="j" * MAX_TEXT)
    town.run(0.1)
    assert late.view is not None and decode(encode(late.view)) == late.view and late.view.refused


def test_a_flood_of_runs_is_refused_and_forgotten() -> None:
    town = Town()
    agents = [town.join(f"n{number}", run=f"r{number}")[0] for number in range(MAX_RUNS + 1)]
    town.run(0.1)
    assert agents[-1].view is not None and "takes no more" in agents[-1].view.refused
    for agent in agents:
        agent.alive = False
    town.run(LEASE_S + 1)
    town.now += FORGET_S
    town.run(LEASE_S + 1)
    assert not town.core._runs and not town.core._peers
    (new,) = town.join("new", run="new")
    town.run(FIRST_CALL_S + 0.2)
    assert new.report.state == "member"


# --- any history ----------------------------------------------------------------------------------


@given(seed=st.integers(0, 2**32))
def test_whatever_happens_one_generation_of_all_who_live_is_there_in_the_end(seed: int) -> None:
    """Nodes come, die, freeze, leave and fail, and the coordinator dies: no two groups train for long."""
    dice = random.Random(seed)
    town = Town()
    for name in "ab":
        town.join(name)
    for event in range(dice.randrange(1, 14)):
        living = [agent for agent in town.agents.values() if agent.alive]
        match dice.choice(("come", "kill", "leave", "fail", "freeze", "restart", "away")):
            case "come" if len(living) < 4:
                town.join(f"n{event}")
            case "kill" if living:
                dice.choice(living).alive = False
            case "leave" if living:
                agent = dice.choice(living)
                agent.tell(state="left")
                town.turn()
                agent.alive = False
            case "fail" if living and (agent := dice.choice(living)).report.state == "member":
                agent.rejoin()
            case "freeze" if living:
                dice.choice(living).next_at = town.now + dice.uniform(0, 2 * LEASE_S)
            case "restart":
                town.restart()
            case "away":
                town.there = not town.there
        until = town.now + dice.choice((0.0, 0.1, 1.0, 4.0))
        while town.now < until:
            town.turn()
            for agent in town.agents.values():
                if agent.disturbed and dice.random() < 0.3:
                    agent.rejoin()
            town.now += STEP_S
    town.there = True
    for _ in range(12):
        town.run(LEASE_S)
        for agent in town.agents.values():
            if agent.disturbed:
                agent.rejoin()
    living = {agent.name for agent in town.agents.values() if agent.alive}
    if living:
        assert set(town.members()) == living
        generations = {(a.generation.number, a.generation.token) for a in town.agents.values() if a.alive}
        assert len(generations) == 1
        assert not any(agent.disturbed for agent in town.agents.values() if agent.alive)
