"""What the answer to a ping says was lost on a broken connection."""

from __future__ import annotations

import pytest

from edldist.student.queue.pings import Missing, Pings
from edldist.wire.messages import Pong

NOTHING = Missing(frozenset(), 0, False)


def pong(seq=1, held=(), pulled=0, asleep=False) -> Pong:
    return Pong(seq=seq, held=list(held), pulled=pulled, asleep=asleep)


def missing(answer: Pong, leases=(), pulled=0, awake=True, by_now=None) -> Missing | None:
    """What an answer lacks, to a ping that left when this side knew so much."""
    pings = Pings()
    pings.send(frozenset(leases), pulled, awake)
    return pings.answered(answer, pulled if by_now is None else by_now)


def test_a_view_that_agrees_misses_nothing():
    assert missing(pong(held=[1, 2]), leases=[1, 2], pulled=3) == NOTHING
    assert missing(pong(asleep=True), awake=False) == NOTHING
    assert missing(pong(held=[1, 2]), leases=[1]) == NOTHING  # leased behind the ping


def test_leases_that_the_worker_does_not_hold_are_missing():
    assert missing(pong(held=[2]), leases=[1, 2, 3]) == (frozenset({1, 3}), 0, False)


def test_a_pull_that_never_came_is_missing():
    assert missing(pong(pulled=4), pulled=3) == (frozenset(), 4, False)


def test_a_pull_whose_answer_never_arrived_is_missing():
    assert missing(pong(pulled=3), pulled=3) == (frozenset(), 3, False)
    assert missing(pong(pulled=3), pulled=3, by_now=4) == (frozenset(), 3, False)


def test_a_pull_that_came_after_the_ping_was_answered_after_it_too():
    assert missing(pong(pulled=4), pulled=3, by_now=4) == NOTHING


def test_a_worker_without_an_open_pull_waits_for_no_answer():
    assert missing(pong(pulled=0), pulled=0) == NOTHING


def test_a_worker_that_sleeps_though_it_was_woken_misses_its_wake():
    assert missing(pong(asleep=True), awake=True) == (frozenset(), 0, True)


@pytest.mark.parametrize("seq", [0, 2, 99])
def test_answers_to_no_ping_that_is_under_way_say_nothing(seq):
    assert missing(pong(seq=seq, pulled=9), leases=[1]) is None


def test_answers_belong_to_their_own_ping_and_overtake_lost_ones():
    pings = Pings()
    assert [pings.send(frozenset({n}), n, True) for n in (1, 2, 3)] == [1, 2, 3]
    assert pings.answered(pong(seq=2), 3) == (frozenset({2}), 0, False)
    assert list(pings) == [3]  # the first one's answer will not come any more
    assert pings.answered(pong(seq=1), 3) is None
    assert pings.answered(pong(seq=2), 3) is None, "an answer that comes twice"
    assert pings.answered(pong(seq=3, held=[3]), 3) == NOTHING
    assert not pings


def test_a_worker_that_never_answers_costs_no_memory_without_bound():
    pings = Pings()
    for _ in range(1000):
        newest = pings.send(frozenset(), 0, True)
    assert len(pings) == 64
    assert pings.answered(pong(seq=newest), 0) == NOTHING
