"""What a label queue knows of its batches after some were passed over, asked for again, or forgotten."""

from __future__ import annotations

import pytest

from edldist.student.queue.flow import Flow
from edldist.student.queue.queue import LabelQueue
from edldist.student.queue.wanted import Wanted


def keep(batch: int, teacher: str) -> int:
    return 0


def withholding(pieces: int) -> LabelQueue:
    """Two batches of four samples. b has labelled them, and a's workers were lost with pieces of two."""
    queue = LabelQueue(["a", "b"], Flow(max_attempts=1))
    queue.join("b1", "b")
    for _ in range(2):
        queue.offer(4, 4)
    labelled(queue, "b1", 8)
    for number in range(3 * pieces):  # held by two, and then by one that holds nothing else
        queue.join(f"a{number}", "a")
        queue.lease(f"a{number}", 2, 0.0)
        assert not queue.lose(f"a{number}", "killed", 0.0).poison
    queue.validate(0.0)
    return queue


def labelled(queue: LabelQueue, worker: str, samples: int) -> None:
    for grant in queue.lease(worker, samples, 0.0):
        queue.complete(grant.lease, 0.0)


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_what_is_withheld_is_lacking_and_poison_once_its_time_is_up(pieces: int) -> None:
    queue = withholding(pieces)
    assert queue.lacks_only(["a"]) == {"a"}, "what waits, and what is withheld"
    poison = [(each.teacher, each.batch, each.samples) for each in queue.verdicts(1e9)]
    assert poison == [("a", 0, range(2)), ("a", 0, range(2, 4)), ("a", 1, range(2))][:pieces]


def test_what_is_withheld_of_a_batch_that_is_passed_over_is_no_poison_later() -> None:
    queue = withholding(3)
    queue.pass_over(["a"])
    assert queue.deliver() == 0
    assert [(each.batch, each.samples) for each in queue.verdicts(1e9)] == [(1, range(2))]
    queue.validate(1e9)


def test_nothing_is_lacking_without_a_batch_or_where_others_are_lacking_too() -> None:
    queue = LabelQueue(["a", "b"])
    assert queue.lacks_only(["a"]) == frozenset()
    queue.offer(4, 4)
    assert queue.lacks_only(["a"]) == frozenset()
    assert queue.lacks_only(["a", "b"]) == {"a", "b"}


def test_labels_that_were_asked_for_again_are_not_taken_back_a_second_time() -> None:
    queue = LabelQueue(["t"])
    queue.join("old", "t")
    queue.join("new", "t")
    queue.offer(4, 10)
    queue.offer(4, 10)
    labelled(queue, "old", 8)
    assert queue.ask_again(0, "t", Wanted.whole(4), 0) == 4
    labelled(queue, "new", 4)
    assert queue.take_back("old", 0.0, keep).samples == 4, "of the second batch"
    queue.validate(0.0)
    assert queue.ready() and queue.deliver() == 0 and not queue.ready()


def test_only_what_one_teacher_labelled_is_asked_for_again() -> None:
    queue = LabelQueue(["t", "u"])
    queue.join("a", "t")
    queue.join("b", "u")
    queue.offer(4, 10)
    labelled(queue, "a", 4)
    labelled(queue, "b", 4)
    assert queue.ask_again(0, "t", Wanted.whole(4), 0) == 4
    assert queue.take_back("a", 0.0, keep).samples == 0, "they are gone"
    assert queue.take_back("b", 0.0, keep).samples == 4, "it is known who made the other's labels"
    queue.validate(0.0)


def test_what_came_back_of_another_batch_had_no_labels_in_this_one() -> None:
    queue = LabelQueue(["t"])
    queue.join("a", "t")
    queue.join("lost", "t")
    queue.offer(4, 4)
    labelled(queue, "a", 4)
    queue.offer(4, 4)
    queue.lease("lost", 4, 0.0)
    queue.lose("lost", "killed", 0.0)
    assert queue.ask_again(0, "t", Wanted.whole(4), 0) == 4
    queue.validate(0.0)


def test_what_is_withheld_of_a_batch_that_is_asked_for_again_is_no_poison_later() -> None:
    queue = withholding(1)
    assert queue.ask_again(0, "a", Wanted.whole(4), 0) == 0
    queue.validate(0.0)
    assert queue.verdicts(1e9) == []
    queue.join("fresh", "a")
    assert [(each.batch, each.start, each.stop) for each in queue.lease("fresh", 4, 0.0)] == [(0, 0, 4)]


def test_memory_is_freed_where_a_worker_made_all_labels_of_a_teacher_in_the_order_of_batches() -> None:
    queue = LabelQueue(["t", "u"])
    for worker, teacher in [("a", "t"), ("b", "t"), ("c", "u")]:
        queue.join(worker, teacher)
    shared = queue.offer(4, 4)
    labelled(queue, "a", 2)
    labelled(queue, "b", 2)
    whole = [queue.offer(4, 4) for _ in range(8)]
    labelled(queue, "a", 32)
    labelled(queue, "c", 36)
    freed: list[tuple[int, str]] = []
    taken = queue.take_back("a", 0.0, lambda *place: freed.append(place) or 0)
    assert taken.samples == 34
    assert freed == [(number, "t") for number in whole], f"b's labels of {shared} are there"
    queue.validate(0.0)


def test_of_a_batch_that_was_given_up_what_was_labelled_stays_known() -> None:
    """It is not asked for again, so what the loop has of its worker counts."""
    queue = LabelQueue(["t"])
    queue.join("a", "t")
    queue.offer(4, 10)
    (grant,) = queue.lease("a", 2, 0.0)
    queue.complete(grant.lease, 0.0)
    queue.abandon(0)
    assert queue.ask_again(0, "t", Wanted.whole(4), 0) is None
    assert queue.deliver() == 0 and queue.consumed("a") == 2


def test_labels_of_batches_that_were_forgotten_are_not_taken_back() -> None:
    queue = LabelQueue(["t"])
    queue.join("a", "t")
    queue.offer(4, 10)
    labelled(queue, "a", 4)
    queue.clear()
    queue.offer(4, 10)
    assert queue.take_back("a", 0.0, keep).samples == 0
    queue.validate(0.0)
    assert queue.lacking("t") == {1: 4}


def test_what_a_worker_labelled_is_counted_from_when_it_joined() -> None:
    queue = LabelQueue(["t"])
    queue.join("a", "t")
    queue.offer(4, 10)
    labelled(queue, "a", 4)
    queue.deliver()
    assert queue.consumed("a") == 4
    queue.leave("a", 0.0)
    queue.join("a", "t")
    assert queue.consumed("a") == 0


def test_room_is_kept_for_the_labels_of_all_teachers_of_a_batch() -> None:
    """Each teacher's labels take 40 bytes for 4 samples: two batches more have no place in 200 bytes."""
    queue = LabelQueue(["a", "b"], Flow(low_watermark=8, high_watermark=9, max_bytes=200))
    for name in ("a", "b"):
        queue.join(name, name)
    for _ in range(2):  # of the first nobody knew before
        number = queue.offer(4, 10)
        queue.grow(number, 80)
        labelled(queue, "a", 4)
        labelled(queue, "b", 4)
        queue.deliver()
    queue.offer(4, 10)
    assert queue.wants_batch(), "90 and 90 bytes"
    queue.offer(4, 10)
    assert not queue.wants_batch(), "and 90 more"


def test_each_task_of_a_lost_worker_is_looked_at_although_another_has_the_first() -> None:
    queue = LabelQueue(["t"], Flow(task_size=2))
    queue.join("lost", "t")
    queue.join("other", "t")
    queue.offer(4, 4)
    assert len(queue.lease("lost", 4, 0.0)) == 2
    second = queue.hedge("other", 2, 100.0, older_than_s=1.0)
    assert second is not None and (second.start, second.stop) == (0, 2)
    assert queue.lose("lost", "killed", 100.0).requeued == 1
    queue.validate(100.0)
    assert [(grant.start, grant.stop) for grant in queue.lease("other", 2, 100.0)] == [(2, 4)]


# --- memory -----------------------------------------------------------------------------------------------


def bounded(most: int) -> LabelQueue:
    """A queue that reads as long as batches, with the labels that they will get, have room."""
    queue = LabelQueue(["t"], Flow(low_watermark=8, high_watermark=9, max_bytes=most))
    queue.join("a", "t")
    return queue


def deliver_one(queue: LabelQueue) -> None:
    """A batch of 10 bytes whose labels take 80."""
    number = queue.offer(4, 10)
    queue.grow(number, 80)
    labelled(queue, "a", 4)
    assert queue.deliver() == number


@pytest.mark.parametrize(("most", "wants"), [(270, True), (269, False)])
def test_no_room_is_kept_for_labels_that_have_their_memory_already(most: int, wants: bool) -> None:
    queue = bounded(most)
    for number in (queue.offer(4, 10), queue.offer(4, 10)):
        queue.grow(number, 80)
    labelled(queue, "a", 4)
    assert queue.wants_batch() == wants, "90 and 90 bytes, and as many for the next one"


@pytest.mark.parametrize(("most", "wants"), [(180, True), (179, False)])
def test_room_is_kept_for_labels_that_are_asked_for_again(most: int, wants: bool) -> None:
    queue = bounded(most)
    deliver_one(queue)
    number = queue.offer(4, 10)
    queue.grow(number, 80)
    labelled(queue, "a", 4)
    queue.ask_again(number, "t", Wanted.whole(4), 80)
    queue.validate(0.0)
    assert queue.nbytes == 10 and queue.wants_batch() == wants


def test_none_is_kept_while_nobody_knows_what_labels_take() -> None:
    queue = bounded(20)
    queue.offer(4, 10)
    (grant,) = queue.lease("a", 2, 0.0)
    queue.complete(grant.lease, 0.0)
    queue.grow(0, 80)
    assert not queue.wants_batch()
    queue.ask_again(0, "t", Wanted.whole(4), 80)
    assert queue.wants_batch(), "10 bytes, and 10 of the next one"


@pytest.mark.parametrize(("most", "wants"), [(180, True), (179, False)])
def test_labels_that_were_made_twice_count_once(most: int, wants: bool) -> None:
    queue = bounded(most)
    number = queue.offer(4, 10)
    queue.grow(number, 80)
    labelled(queue, "a", 4)
    queue.ask_again(number, "t", Wanted.whole(4), 80)
    queue.grow(number, 80)
    labelled(queue, "a", 4)
    queue.deliver()
    queue.offer(4, 10)
    assert queue.wants_batch() == wants, "90 bytes, and 90 of the next one"


# --- batches beside each other ------------------------------------------------------------------------------


def test_what_came_back_of_other_batches_is_none_of_the_heads() -> None:
    """Both batches wait for a alone, whose worker left with both."""
    queue = LabelQueue(["a", "b"])
    queue.join("a1", "a")
    queue.join("b1", "b")
    for _ in range(2):
        queue.offer(4, 4)
    labelled(queue, "b1", 8)
    assert len(queue.lease("a1", 8, 0.0)) == 2
    queue.leave("a1", 0.0)
    assert queue.lacks_only(["a"]) == {"a"}
    queue.pass_over(["a"])
    queue.validate(0.0)
    assert queue.deliver() == 0 and queue.lacking("a") == {1: 4}
    queue.join("a2", "a")
    assert [(grant.batch, grant.start, grant.stop) for grant in queue.lease("a2", 8, 0.0)] == [(1, 0, 4)]


# --- workers ------------------------------------------------------------------------------------------------


def test_who_holds_a_task_that_others_were_lost_with_gets_nothing_beside_it() -> None:
    queue = LabelQueue(["t"])
    for name in ("lost1", "lost2", "a"):
        queue.join(name, "t")
    queue.offer(4, 4)
    for name in ("lost1", "lost2"):
        assert len(queue.lease(name, 2, 0.0)) == 1
        queue.lose(name, "killed", 0.0)
    (alone,) = queue.lease("a", 4, 0.0)
    assert (alone.start, alone.stop) == (0, 2)
    assert queue.lease("a", 4, 0.0) == [] and not queue.has_work("a", 0.0), "two samples wait"
    queue.complete(alone.lease, 0.0)
    (rest,) = queue.lease("a", 4, 0.0)
    assert (rest.start, rest.stop) == (2, 4)


def test_how_long_answers_take_is_told_of_all_workers_together() -> None:
    queue = LabelQueue(["t"])
    queue.join("a", "t")
    queue.join("b", "t")
    queue.offer(4, 4)
    (first,), (second,) = queue.lease("a", 2, 1.0), queue.lease("b", 2, 1.0)
    queue.complete(first.lease, 1.5)
    queue.complete(second.lease, 4.0)
    times = queue.answering.told("answer")
    assert (times.sum_s, sum(times.counts)) == (3.5, 2)
