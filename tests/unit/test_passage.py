"""The ways of single tasks through a worker: what is timed, and that nothing of a task's time is left out."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist.teacher.passage import LATE_S, ROW_EVERY_S, TIMED_EVERY_S, Passage, Passages
from edldist.wire.messages import MOST_ROWS, STAGES, Heartbeat, decode, encode

durations = st.lists(st.floats(0, 10), min_size=2 * len(STAGES), max_size=2 * len(STAGES))


def drawn(seed: int = 0) -> Passages:
    return Passages(random.Random(seed))


def walked(passages: Passages, took: list[float], at: float = 100.0, without: str = "") -> Passage:
    """A task that waited and took so long, stage by stage, from ``at`` on."""
    passage = passages.begin(at, at + took[0])
    at += took[0] + took[1]
    passages.took(passage, at)
    for stage, wait, seconds in zip(STAGES[1:], took[2::2], took[3::2], strict=True):
        if stage != without:
            passage.began(stage, at + wait)
            passage.ended(stage, at + wait + seconds)
        at += wait + seconds
    passages.left(passage)
    return passage


@given(durations)
def test_stages_and_waits_are_what_they_were_and_add_up_to_the_whole(took: list[float]) -> None:
    passages = drawn()
    passage = walked(passages, took)
    stages, waits, total_s = passage.durations()
    for at in range(len(STAGES)):
        assert abs(waits[at] - took[2 * at]) < 1e-9 and abs(stages[at] - took[2 * at + 1]) < 1e-9
    assert abs(total_s - sum(took)) < 1e-6 and abs(sum(stages) + sum(waits) - total_s) < 1e-6
    assert abs(passage.ended_at - (100.0 + sum(took))) < 1e-6
    (row,) = passages.rows(passage.ended_at + 0.5)
    assert row.total_s == round(total_s, 9)
    assert row.stages == [round(each, 9) for each in stages] and abs(row.ago_s - 0.5) < 1e-9
    for stage, clock in passages.stages.items():
        told = clock.told(stage)
        assert (sum(told.counts), sum(told.waits)) == (1, 1)
        assert abs(told.waited_s - waits[STAGES.index(stage)]) < 1e-9


@given(durations, st.sampled_from(STAGES[1:-1]))
def test_a_stage_that_nobody_saw_takes_no_time_and_its_own_counts_as_the_next_ones_wait(
    took: list[float], unseen: str
) -> None:
    stages, waits, total_s = walked(drawn(), took, without=unseen).durations()
    at = STAGES.index(unseen)
    assert stages[at] == waits[at] == 0.0
    assert abs(waits[at + 1] - sum(took[2 * at : 2 * at + 3])) < 1e-9
    assert abs(sum(stages) + sum(waits) - total_s) < 1e-6 and abs(total_s - sum(took)) < 1e-6


def test_a_way_begins_before_a_pass_takes_the_task() -> None:
    assert drawn().begin(1.0, 2.0).taken is False


def test_nor_does_one_that_nobody_saw_end() -> None:
    passage = Passage(1.0)
    passage.began("decode", 3.0)
    passage.began("batch", 5.0)
    passage.ended("batch", 6.0)
    stages, waits, total_s = passage.durations()
    decode, batch = STAGES.index("decode"), STAGES.index("batch")
    assert (waits[decode], stages[decode], waits[batch], stages[batch], total_s) == (0.0, 0.0, 4.0, 1.0, 5.0)


@given(st.lists(st.floats(0, 1e6), min_size=2 * len(STAGES), max_size=2 * len(STAGES)))
def test_clocks_that_disagree_make_no_time_negative_and_count_none_twice(moments: list[float]) -> None:
    passage = Passage(5.0)
    for stage, began, ended in zip(STAGES, moments[::2], moments[1::2], strict=True):
        passage.began(stage, began)
        passage.ended(stage, ended)
    stages, waits, total_s = passage.durations()
    assert min(*stages, *waits, total_s) >= 0.0
    assert abs(sum(stages) + sum(waits) - total_s) < 1e-3


def come(passages: Passages, moments: Iterable[float]) -> list[int]:
    """Messages with tasks come at these moments; the numbers of those that are timed."""
    timed = []
    for number, at in enumerate(moments):
        if passages.skip <= 0 or at >= passages.late_at:
            passages.took(passages.begin(at, at), at)
            timed.append(number)
        else:
            passages.passed()
    return timed


def test_every_message_is_timed_where_few_come_and_one_without_tasks_never_counts() -> None:
    passages = drawn()
    passages.begin(1.0, 1.0)  # it brought none
    assert come(passages, [1.0 + 2 * TIMED_EVERY_S * number for number in range(200)]) == list(range(200))


def test_fifty_a_second_is_where_messages_begin_to_pass() -> None:
    assert len(come(drawn(), [number / 45 for number in range(450)])) == 450
    assert len(come(drawn(), [number / 80 for number in range(800)])) < 600


def test_how_many_messages_come_is_known_while_a_second_begins() -> None:
    passages, rates = drawn(), []
    for number in range(3_000):
        come(passages, [number / 1_000])
        rates.append(passages._rate(number / 1_000))
    assert min(rates[1_100:]) > 800 and max(rates[1_100:]) < 1_200


def test_so_many_messages_pass_before_one_is_timed_as_the_lot_said() -> None:
    passages = drawn()
    come(passages, (number / 5_000 for number in range(1_000)))
    while not (blanks := passages.skip):
        passages.took(passages.begin(0.3, 0.3), 0.3)
    for left in range(blanks - 1, -1, -1):
        passages.passed()
        assert passages.skip == left


@pytest.mark.parametrize("per_s", [200, 5_000, 100_000])
def test_fifty_messages_a_second_are_timed_where_many_come(per_s: int) -> None:
    timed = come(drawn(), (number / per_s for number in range(4 * per_s)))
    assert 100 < sum(number >= per_s for number in timed) < 200, "in the three seconds after the first"
    assert sum(number < per_s for number in timed) < 100, "and no more in that one"


def test_each_message_of_a_burst_has_the_same_chance() -> None:
    """Ten messages, and a long pause: a clock, whatever its gaps, would find the first of them."""
    bursts = (burst / 40 + 0.0001 * number for burst in range(8_000) for number in range(10))
    timed = come(drawn(), bursts)
    places = [sum(number % 10 == place for number in timed) / len(timed) for place in range(10)]
    assert all(0.08 < share < 0.12 for share in places), places


def test_a_worker_with_less_to_do_than_before_is_still_timed() -> None:
    passages = drawn()
    come(passages, (number / 100_000 for number in range(200_000)))
    timed = come(passages, [2.0 + LATE_S / 4 * number for number in range(20)])
    assert timed and timed[0] <= 4 and len(timed) > 10


def test_rows_are_few_and_drawn_and_each_is_told_once() -> None:
    passages = drawn()
    assert passages.rows(100.0) == []
    for number in range(400):
        walked(passages, [0.0, 0.0001] * len(STAGES), at=100.0 + 0.0025 * number)
    rows = passages.rows(101.0)
    assert len(rows) == round(1 / ROW_EVERY_S) and passages.rows(101.0) == []
    ago = [row.ago_s for row in rows]
    assert ago == sorted(ago, reverse=True)
    beat = Heartbeat(id="t", rows=rows)
    assert decode(encode(beat)) == beat


def test_of_a_moment_one_row_is_told() -> None:
    passages = drawn()
    passages.rows(100.0)
    for number in range(3):
        walked(passages, [0.0, 0.0001] * len(STAGES), at=100.0 + 0.01 * number)
    assert len(passages.rows(100.1)) == 1


def test_rows_are_of_any_time_since_the_last_and_never_more_than_a_heartbeat_takes() -> None:
    ago: list[float] = []
    for seed in range(200):
        passages = drawn(seed)
        for number in range(100):
            walked(passages, [0.0, 0.0001] * len(STAGES), at=100.0 + number)
        rows = passages.rows(200.0)
        assert len(rows) == MOST_ROWS
        ago += [row.ago_s for row in rows]
    assert 45 < sum(ago) / len(ago) < 55
