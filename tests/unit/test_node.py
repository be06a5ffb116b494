"""A node's supervisor tells lost nodes and frozen ranks from a script that cannot work."""

from __future__ import annotations

from launch.node import NodeWatch


def test_restarts_without_a_batch_are_hopeless_after_a_while() -> None:
    watch = NodeWatch(max_fruitless=2)
    for generation in range(3):
        watch.see_ranks([generation * 10, generation * 10 + 1])
        assert not watch.hopeless
    watch.see_ranks([90, 91])
    assert watch.hopeless and watch.restarts == 3


def test_one_delivered_batch_refills_the_budget() -> None:
    watch = NodeWatch(max_fruitless=2)
    for generation in range(1, 20):
        watch.see_ranks([generation])
        if generation % 2:
            watch.see_batches({generation: 1, 4242: 9})
    assert not watch.hopeless
    assert watch.restarts == 18


def test_batches_of_other_processes_count_for_nothing() -> None:
    watch = NodeWatch(max_fruitless=1)
    for generation in range(1, 4):
        watch.see_ranks([generation])
        watch.see_batches({generation: 0, 4242: 9})
    assert watch.hopeless


def test_only_own_ranks_that_were_written_off_are_killed() -> None:
    watch = NodeWatch(max_fruitless=1)
    watch.see_ranks([7, 8])
    assert watch.written_off([8, 9]) == [8]
    watch.see_ranks([])
    assert watch.written_off([8]) == [8]
    watch.see_ranks([17, 18])
    assert watch.written_off([8]) == []
