"""Where ranks meet that go on in process when their group changes: at once, with whoever is left."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from edldist.coordinator.rendezvous import FIRST_CALL_S, LEASE_S, NEXT_CALL_S
from tests.unit.town import STEP_S, Agent, Town, formed


def bury(town: Town, rank: Agent) -> None:
    """The rank is killed, and its node's supervisor says so."""
    rank.alive = False
    said = msgspec.structs.replace(rank.report, state="left", seq=1 << 53)
    town.agents["supervisor"] = rank  # whoever answers finds nobody there
    town.core.report(b"supervisor", said, town.now)


def test_the_others_form_the_next_generation_as_soon_as_a_rank_is_said_to_be_dead() -> None:
    town, (a, b, c) = formed("a", "b", "c", live=True)
    bury(town, b)
    for rank in (a, c):
        rank.rejoin()
    town.turn()
    town.turn()
    assert town.members() == ["a", "c"] and a.generation.number == 2


def test_nodes_of_another_run_wait_for_each_other_a_little() -> None:
    town, (a, b, c) = formed("a", "b", "c")
    bury(town, b)
    for node in (a, c):
        node.rejoin()
    town.run(NEXT_CALL_S - 2 * STEP_S)
    assert a.report.state == "joining"
    town.run(4 * STEP_S)
    assert town.members() == ["a", "c"]


def test_what_a_dead_rank_had_under_way_is_no_life_of_it() -> None:
    town, (a, b) = formed("a", "b", live=True)
    bury(town, b)
    town.core.report(b"b", b.report, town.now)
    a.rejoin()
    town.turn()
    town.turn()
    assert town.members() == ["a"] and a.generation.number == 2


def test_what_comes_of_a_dead_rank_later_is_none_either_nor_that_it_is_said_to_be_dead_twice() -> None:
    town, (a, b, c) = formed("a", "b", "c", live=True)
    bury(town, b)
    town.turn()
    town.now += 0.5
    bury(town, c)
    town.turn()
    for dead in (b, c):
        town.core.report(
            dead.name.encode(), msgspec.structs.replace(dead.report, seq=dead.report.seq + 1), town.now
        )
    town.turn()
    assert set(town.core._runs["r"].nodes) == {"a"}
    bury(town, b)
    town.turn()
    town.now += LEASE_S - 0.2
    town.core.report(b"b", b.report, town.now)
    assert set(town.core._runs["r"].nodes) == {"a"}, "it was said just now"
    assert a.view is not None and sorted(a.view.gone) == ["b", "c"]


def test_who_died_is_remembered_for_a_lease_and_no_longer() -> None:
    town, (a, *others) = formed("a", "b", "c", "d", live=True)
    for dead in others:
        bury(town, dead)
        town.turn()
        a.next_at = town.now
        town.now += LEASE_S / 2 + 0.1
    assert set(town.core._runs["r"].left) == {"c", "d"}


def test_a_node_that_left_and_comes_back_is_heard_at_once_where_it_is_no_rank() -> None:
    town, (a, b) = formed("a", "b")
    b.tell(state="left")
    town.turn()
    b.rejoin()
    town.turn()
    assert a.view is not None and a.view.waiting == 1 and a.view.gone == ["b"]


def test_a_rank_that_is_not_dead_after_all_is_heard_again_later() -> None:
    town, (a, b) = formed("a", "b", live=True)
    bury(town, b)
    a.rejoin()
    town.run(LEASE_S + 0.2)
    b.alive = True
    del town.agents["supervisor"]
    b.rejoin()
    town.run(1.0)
    assert a.disturbed
    a.rejoin()
    town.run(1.0)
    assert set(town.members()) == {"a", "b"}


def test_whoever_is_left_goes_on_though_the_first_generation_needed_more() -> None:
    town, (a, b, c) = formed("a", "b", "c", live=True, least=3)
    bury(town, b)
    bury(town, c)
    a.rejoin()
    town.run(0.2)
    assert town.members() == ["a"]


def test_the_first_generation_has_at_least_as_many_as_the_run_needs() -> None:
    town = Town()
    (a,) = town.join("a", live=True, least=2)
    town.run(FIRST_CALL_S * 5)
    assert a.report.state == "joining"


@given(seed=st.integers(0, 2**32))
def test_whatever_happens_one_generation_of_all_who_live_is_there_in_the_end(seed: int) -> None:
    dice = random.Random(seed)
    town = Town()
    for name in "abc":
        town.join(name, live=True)
    for event in range(dice.randrange(1, 14)):
        living = [agent for agent in town.agents.values() if agent.alive]
        match dice.choice(("come", "kill", "bury", "freeze", "restart", "away")):
            case "come" if len(living) < 4:
                town.join(f"n{event}", live=True)
            case "kill" if living:
                dice.choice(living).alive = False
            case "bury" if living and town.there:
                bury(town, dice.choice(living))
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
            if agent.disturbed or (agent.view is not None and agent.view.gone):
                agent.rejoin()
    living = {agent.name for agent in town.agents.values() if agent.alive}
    if living:
        assert set(town.members()) == living
        generations = {(a.generation.number, a.generation.token) for a in town.agents.values() if a.alive}
        assert len(generations) == 1
