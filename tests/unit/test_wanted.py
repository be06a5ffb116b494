"""What is wanted of a teacher: which samples, what they cost, and where a cut ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist.student.queue.flow import Flow
from edldist.student.queue.queue import LabelQueue
from edldist.student.queue.wanted import Wanted


@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=20),
    room=st.integers(0, 40),
    most=st.none() | st.integers(0, 40),
    data=st.data(),
)
def test_a_cut_is_the_longest_that_costs_no_more(lengths, room, most, data):
    wanted = Wanted.whole(len(lengths), lengths)
    wanted = wanted if most is None else wanted.cut_at(most)
    start = data.draw(st.integers(0, len(lengths) - 1))
    stop = data.draw(st.integers(start, len(lengths)))
    end = wanted.fitting(start, stop, room)
    bound = room if most is None else min(room, most)
    assert start <= end <= stop
    assert wanted.cost(start, end) == sum(lengths[start:end]) <= bound
    assert end == stop or sum(lengths[start : end + 1]) > bound


def test_a_sample_without_a_length_costs_one():
    wanted = Wanted.whole(8)
    assert (wanted.size, wanted.missing, wanted.cost(2, 5)) == (8, 8, 3)
    assert (wanted.fitting(2, 8, 3), wanted.fitting(2, 4, 3), wanted.cut_at(2).fitting(2, 8, 3)) == (5, 4, 4)
    assert Wanted.whole(0).runs == () and Wanted.whole(0, []).size == 0


def queue_of(*teachers: str, flow: Flow | None = None, **wanted: Wanted) -> LabelQueue:
    """A batch of ten samples of which this is wanted, and a worker ``w`` of each teacher."""
    queue = LabelQueue(teachers, flow)
    for teacher in teachers:
        queue.join(f"w{teacher}", teacher)
    queue.offer(10, 10, wanted)
    queue.validate(0.0)
    return queue


def cuts(queue: LabelQueue, worker: str, room: int) -> list[tuple[int, int]]:
    grants = queue.lease(worker, room, 0.0)
    queue.validate(0.0)
    for grant in grants:
        queue.complete(grant.lease, 0.0)
        queue.validate(0.0)
    return [(grant.start, grant.stop) for grant in grants]


def test_only_what_is_wanted_is_given_out_and_waited_for():
    queue = queue_of("t", t=Wanted(10, ((1, 3), (6, 9))))
    assert cuts(queue, "wt", 4) == [(1, 3), (6, 8)]
    assert not queue.ready()
    assert cuts(queue, "wt", 4) == [(8, 9)]
    assert queue.ready() and queue.deliver() == 0


def test_fixed_cuts_of_runs_end_where_those_of_whole_batches_do():
    queue = queue_of("t", flow=Flow(task_size=4), t=Wanted(10, ((1, 7), (9, 10))))
    assert cuts(queue, "wt", 100) == [(1, 4), (4, 7), (9, 10)]


def test_a_teacher_of_whom_nothing_is_wanted_is_not_waited_for():
    queue = queue_of("a", "b", a=Wanted.whole(3))
    assert cuts(queue, "wb", 10) == []
    assert cuts(queue, "wa", 10) == [(0, 3)]
    assert queue.ready()
    assert queue_of("a", "b").ready(), "a store has all of it"


def test_room_is_used_up_by_what_samples_cost():
    queue = queue_of("t", t=Wanted.whole(5, [4, 1, 7, 2, 2]))
    assert cuts(queue, "wt", 5) == [(0, 2)]
    assert cuts(queue, "wt", 5) == [(2, 3)], "a single sample is given although it costs more"
    assert cuts(queue, "wt", 3) == [(3, 4)]
    assert cuts(queue, "wt", 3) == [(4, 5)] and queue.ready()


def test_a_task_that_came_back_is_cut_by_cost_too():
    queue = queue_of("t", t=Wanted.whole(4, [2, 2, 6, 1]))
    queue.lease("wt", 20, 0.0)
    queue.lose("wt", "killed", 0.0)
    queue.join("wt", "t")
    queue.validate(0.0)
    (first,) = queue.lease("wt", 5, 0.0)
    (second,) = queue.lease("wt", 5, 0.0)
    assert [(g.start, g.stop, g.cost) for g in (first, second)] == [(0, 2, 4), (2, 3, 6)]
    queue.validate(0.0)
    assert cuts(queue, "wt", 5) == [(3, 4)]


@pytest.mark.parametrize("lengths", [None, [3] * 10])
def test_no_cut_costs_more_than_a_message_can_carry(lengths):
    queue = queue_of("t", t=Wanted.whole(10, lengths).cut_at(6))
    size = 6 if lengths is None else 2
    assert cuts(queue, "wt", 100)[0] == (0, size)


def test_sleepers_are_woken_for_what_waits_by_its_cost():
    queue = LabelQueue(["t"])
    for name in "abcdef":
        queue.join(name, "t")
        assert queue.lease(name, 4, 0.0) == []
    queue.offer(2, 2, {"t": Wanted.whole(2, [5, 4])})
    assert queue.rouse("t", 0.0, 99) == ["a", "b", "c"], "nine, four at a time"
