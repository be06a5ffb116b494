"""The ways of single tasks through a worker: what is timed, and that nothing of a task's time is left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edldist.teacher.passage import ROW_EVERY_S, TIMED_EVERY_S, Passage, Passages
from edldist.wire.messages import MOST_ROWS, STAGES, Heartbeat, decode, encode

durations = st.lists(st.floats(0, 10), min_size=2 * len(STAGES), max_size=2 * len(STAGES))


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
    passages = Passages()
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
    stages, waits, total_s = walked(Passages(), took, without=unseen).durations()
    at = STAGES.index(unseen)
    assert stages[at] == waits[at] == 0.0
    assert abs(waits[at + 1] - sum(took[2 * at : 2 * at + 3])) < 1e-9
    assert abs(sum(stages) + sum(waits) - total_s) < 1e-6 and abs(total_s - sum(took)) < 1e-6


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


def test_a_message_is_timed_once_in_a_while_and_those_without_tasks_never() -> None:
    passages = Passages()
    assert passages.due_at < 0, "the first one is"
    passages.begin(1.0, 1.0)
    assert passages.due_at < 0, "it brought no tasks"
    passages.took(passages.begin(1.0, 1.0), 1.5)
    assert passages.due_at == 1.5 + TIMED_EVERY_S


def test_rows_are_few_and_the_latest_and_each_is_told_once() -> None:
    passages = Passages()
    for number in range(400):
        walked(passages, [0.0, 0.001] * len(STAGES), at=100.0 + number * ROW_EVERY_S / 4)
    rows = passages.rows(125.0)
    assert len(rows) == MOST_ROWS and passages.rows(125.0) == []
    spans = [one.ago_s - other.ago_s for one, other in zip(rows, rows[1:], strict=False)]
    assert min(spans) >= ROW_EVERY_S - 1e-6 and rows[-1].ago_s < 1.0
    beat = Heartbeat(id="t", rows=rows)
    assert decode(encode(beat)) == beat
