"""How much the label queue reads ahead: so many batches, so many bytes, and room for labels to come."""

from __future__ import annotations

import pytest

from edldist.errors import ConfigError
from edldist.student.queue.flow import Flow
from edldist.student.queue.queue import LabelQueue
from tests.unit.queues import fill, finish, joined


def test_reading_pauses_at_the_high_watermark_and_resumes_at_the_low_one():
    queue = joined("w1", flow=Flow(low_watermark=2, high_watermark=4))
    while queue.wants_batch():
        fill(queue, 8)
    assert queue.open_batches == 4
    while finish(queue, "w1"):
        pass
    assert not queue.wants_batch()
    queue.deliver()
    assert not queue.wants_batch()
    queue.deliver()
    assert queue.wants_batch()


def test_reading_begins_with_as_many_as_the_high_watermark_allows():
    queue = joined(flow=Flow(low_watermark=0, high_watermark=4))
    for _ in range(2):
        while queue.wants_batch():
            fill(queue, 8)
        assert queue.open_batches == 4
        queue.clear()


def test_what_fits_exactly_is_read():
    queue = joined(flow=Flow(max_bytes=20))
    queue.offer(8, nbytes=10)
    assert queue.wants_batch()


def test_labels_that_have_come_count_once_while_others_of_their_batch_are_missing():
    queue = joined("w1", flow=Flow(max_bytes=90))
    label(queue, queue.offer(8, nbytes=10), 20)
    number = queue.offer(8, nbytes=10)
    (part,) = queue.lease("w1", 4, 0.0)
    queue.grow(number, 20)
    assert not queue.complete(part.lease, 1.0)
    assert queue.wants_batch(), "30, and 30 for the next one"
    queue.offer(8, nbytes=10)
    assert queue.wants_batch(), "30 and 30, and 30 for the next one"


def test_leased_batches_make_room_unless_cuts_are_fixed():
    for fixed, most in ((False, 12), (True, 4)):
        queue = joined("w1", flow=Flow(low_watermark=3, high_watermark=4, fixed=fixed))
        label(queue, queue.offer(8, nbytes=8), nbytes=8)
        for _ in range(8):
            while queue.wants_batch():
                fill(queue, 8)
            queue.lease("w1", 8, 0.0)
        while queue.wants_batch():
            fill(queue, 8)
        assert queue.open_batches == most, fixed


def test_until_labels_have_come_leased_batches_make_no_room():
    queue = joined("w1", "w2", flow=Flow(low_watermark=3, high_watermark=4))
    for _ in range(6):
        while queue.wants_batch():
            queue.offer(8, nbytes=8)
        queue.lease("w1", 8, 0.0)
    assert queue.open_batches == 4, "nobody knows what their labels will take"
    (lease, *_) = queue.leases_of("w1")
    queue.grow(0, 8)
    queue.complete(lease, 1.0)
    assert queue.wants_batch()


def label(queue: LabelQueue, number: int, nbytes: int) -> None:
    """Label the batch, and deliver it."""
    queue.grow(number, nbytes)
    finish(queue, "w1")
    assert queue.deliver() == number


def test_bytes_bound_the_queue_leased_or_not_but_one_batch_always_fits():
    queue = joined("w1", flow=Flow(max_bytes=100))
    queue.offer(8, nbytes=1000)
    assert not queue.wants_batch()
    finish(queue, "w1")
    queue.deliver()
    assert queue.wants_batch()
    queue.offer(8, nbytes=33)
    assert queue.wants_batch(), "another one as large as this would fit"
    queue.lease("w1", 8, 0.0)
    queue.offer(8, nbytes=34)
    assert not queue.wants_batch(), "33 and 34, and 34 for the next one"
    queue.lease("w1", 8, 0.0)
    assert not queue.wants_batch(), "leased memory is memory"
    queue.grow(1, 10)
    queue.complete(queue.leases_of("w1")[0], 1.0)
    queue.deliver()
    assert queue.wants_batch(), "34 and 10 of labels to come, and as much for the next one"


def test_room_is_kept_for_labels_that_are_still_to_come():
    queue = joined("w1", flow=Flow(max_bytes=159))
    label(queue, queue.offer(8, nbytes=20), 20)
    first = queue.offer(8, nbytes=20)
    assert queue.nbytes == 20, "kept room is not memory"
    assert queue.wants_batch(), "40, and 40 for the next one"
    second = queue.offer(16, nbytes=20)
    assert not queue.wants_batch(), "40 of inputs and 60 of labels to come, and 60 for the next one: 160"
    queue.grow(first, 30)
    finish(queue, "w1", samples=8)
    queue.deliver()
    assert queue.nbytes == 20
    queue.abandon(second)
    queue.offer(8, nbytes=20)
    assert queue.wants_batch(), "40 of inputs, labels to come: 30, as in the last batch; the next one: 50"
    queue.clear()
    small = queue.offer(8, nbytes=60)
    assert not queue.wants_batch(), "60 and 30, and as much again"
    queue.grow(small, 5)
    finish(queue, "w1")
    assert queue.wants_batch(), "labels that are all there were smaller than was thought"


def test_the_first_labels_tell_how_much_those_that_are_leased_will_take():
    queue = joined("w1", flow=Flow(max_bytes=149, low_watermark=3, high_watermark=4))
    for _ in range(4):
        queue.offer(8, nbytes=10)
    queue.lease("w1", 32, 0.0)
    assert not queue.wants_batch()
    queue.grow(0, 20)
    queue.complete(queue.leases_of("w1")[0], 1.0)
    assert queue.nbytes == 60
    assert not queue.wants_batch(), "60, and 60 for the other three, and 30 for the next one: no room"
    queue.deliver()
    assert queue.wants_batch(), "30 + 60 + 30"


@pytest.mark.parametrize(
    "bad",
    [
        {"low_watermark": 8},
        {"low_watermark": -1},
        {"high_watermark": 0, "low_watermark": 0},
        {"task_size": 0},
        {"max_bytes": 0},
        {"max_attempts": 0},
        {"first_deadline_s": 0.0},
        {"min_deadline_s": float("nan")},
    ],
)
def test_impossible_bounds_are_refused(bad):
    with pytest.raises(ConfigError):
        Flow(**bad)
