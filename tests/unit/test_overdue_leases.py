"""A worker that lives and is late: its answer counts, nobody is accused, and a hang ends all the same."""

from __future__ import annotations

import pytest

from edldist.student.queue.flow import Flow
from edldist.student.queue.queue import LabelQueue

FLOW = Flow(first_deadline_s=0.5, min_deadline_s=0.5, hang_s=60.0, verdict_s=3.0)


def joined(*workers: str, flow: Flow = FLOW) -> LabelQueue:
    queue = LabelQueue(["t"], flow)
    for worker in workers:
        queue.join(worker, "t")
    return queue


def offer(queue: LabelQueue, *sizes: int) -> None:
    for size in sizes:
        queue.offer(size, nbytes=size)


def spread(queue: LabelQueue, *workers: str, samples: int = 8) -> list:
    """The same task is leased to one worker after the other, each time after the deadline of the last."""
    grants = []
    for turn, worker in enumerate(workers):
        (grant,) = queue.lease(worker, samples, 1.0 * turn)
        grants.append(grant)
        queue.expire(1.0 * turn + 0.6)
    return grants


def test_a_task_that_takes_longer_than_the_deadline_is_labelled_by_the_first_that_answers():
    """One task of 1.2 s, a deadline of 0.5 s, three workers that live."""
    queue = joined("a", "b", "c")
    offer(queue, 8)
    (first,) = queue.lease("a", 8, 0.0)
    (overdue,) = queue.expire(0.51)
    assert (overdue.worker, overdue.leases, overdue.returned.requeued) == ("a", 1, 1)
    (second,) = queue.lease("b", 8, 0.51)
    queue.expire(1.02)
    (third,) = queue.lease("c", 8, 1.02)
    assert queue.find(first.lease, "a", 1.2).pieces == ((0, 8),)
    assert queue.complete(first.lease, 1.2), "a late answer is an answer"
    assert queue.deliver() == 0
    assert queue.find(second.lease, "b", 1.71) is None and queue.find(third.lease, "c", 2.22) is None
    assert queue.verdicts(1e9) == []
    assert (queue.done, queue.duplicates, queue.failed) == (1, 2, 0)


def test_others_get_an_overdue_task_but_not_who_holds_it():
    queue = joined("a", "b")
    offer(queue, 8)
    queue.lease("a", 8, 0.0)
    assert not queue.has_work("b", 0.4) and queue.lease("b", 8, 0.4) == []
    queue.expire(0.6)
    assert queue.has_work("b", 0.6) and not queue.has_work("a", 0.6)
    queue.give_back([], "a", 0.6)  # it says something, and so is not stuck
    assert not queue.has_work("a", 0.6) and queue.lease("a", 8, 0.6) == []
    assert [grant.batch for grant in queue.lease("b", 8, 0.6)] == [0]
    assert queue.expire(0.7) == [], "once for each lease"


def test_an_answer_in_time_takes_the_task_that_waits_for_others_away():
    queue = joined("a", "b")
    offer(queue, 8, 8)
    (late,) = queue.lease("a", 8, 0.0)
    queue.expire(0.6)
    assert queue.find(late.lease, "a", 0.7) and queue.complete(late.lease, 0.7)
    assert [grant.batch for grant in queue.lease("b", 16, 0.7)] == [1]


def test_a_stuck_worker_gets_nothing_until_it_answers_and_batches_go_on():
    queue = joined("a", "b")
    offer(queue, 8, 8, 8)
    (stuck,) = queue.lease("a", 8, 0.0)
    queue.expire(0.6)
    assert not queue.has_work("a", 0.6)
    for now in (0.6, 100.0, 1e6):
        assert queue.lease("a", 8, now) == [] and queue.hedge("a", 8, now, 0.0) is None
    for grant in queue.lease("b", 24, 0.7):
        queue.complete(grant.lease, 0.8)
    assert [queue.deliver() for _ in range(3)] == [0, 1, 2]
    offer(queue, 8)
    assert queue.lease("a", 8, 1e6) == [], "others have labelled what it holds, and it still has not answered"
    assert queue.find(stuck.lease, "a", 1e6) is None
    assert queue.has_work("a", 1e6) and len(queue.lease("a", 8, 1e6)) == 1


@pytest.mark.parametrize("word", ["answer", "failure", "return"])
def test_whatever_a_stuck_worker_says_of_a_lease_shows_that_it_goes_on(word):
    queue = joined("a", "b")
    offer(queue, 4, 4)
    first, second = queue.lease("a", 8, 0.0)
    queue.expire(0.6)
    if word == "answer":
        assert queue.find(first.lease, "a", 0.7)
        queue.complete(first.lease, 0.7)
    elif word == "failure":
        assert queue.find(first.lease, "a", 0.7)
        queue.fail(first.lease, "boom", 0.7)
    else:
        queue.give_back([first.lease], "a", 0.7)
    assert queue.expire(0.8) == []
    offer(queue, 4)
    assert any(grant.batch == 2 for grant in queue.lease("a", 8, 0.8))
    assert queue.holds(second.lease)


def test_a_worker_that_is_late_each_time_gets_longer_deadlines_although_others_beat_it():
    queue = joined("slow", "fast")
    offer(queue, 8)
    (late,) = queue.lease("slow", 8, 10.0)
    queue.expire(10.6)
    (quick,) = queue.lease("fast", 8, 10.6)
    queue.complete(quick.lease, 10.7)
    assert queue.find(late.lease, "slow", 12.0) is None
    queue.deliver()
    offer(queue, 8)
    queue.lease("slow", 8, 12.0)
    assert queue.expire(31.9) == [] and len(queue.expire(32.1)) == 1, "ten times the two seconds that it took"


def test_of_leases_that_others_were_first_with_the_last_ones_are_known():
    queue = joined("slow", "fast", flow=Flow())
    leases = []
    for _ in range(65):
        offer(queue, 4)
        leases += queue.lease("slow", 4, 0.0)
        second = queue.hedge("fast", 4, 5.0, 1.0)
        assert second is not None and queue.complete(second.lease, 5.0)
        queue.deliver()
    slow = queue._workers["slow"]
    assert len(slow.beaten) == 64 and list(slow.beaten) == [grant.lease for grant in leases[1:]]


def test_a_late_answer_labels_what_others_have_not_labelled_yet():
    """The task was cut for a smaller worker meanwhile."""
    queue = joined("big", "small")
    offer(queue, 10)
    (whole,) = queue.lease("big", 10, 0.0)
    queue.expire(0.6)
    (part,) = queue.lease("small", 4, 0.6)
    assert (part.start, part.stop) == (0, 4)
    assert not queue.complete(part.lease, 0.7)
    found = queue.find(whole.lease, "big", 0.8)
    assert (found.start, found.stop, found.pieces) == (0, 10, ((4, 10),))
    assert queue.complete(whole.lease, 0.8)
    assert queue.deliver() == 0 and queue.lease("small", 10, 0.8) == []


def test_a_piece_of_an_overdue_task_that_others_hold_is_theirs_no_more_when_the_late_answer_comes():
    queue = joined("big", "small", "other")
    offer(queue, 10)
    (whole,) = queue.lease("big", 10, 0.0)
    queue.expire(0.6)
    (part,) = queue.lease("small", 4, 0.6)
    (rest,) = queue.lease("other", 10, 0.6)
    assert (rest.start, rest.stop) == (4, 10)
    assert queue.find(whole.lease, "big", 0.8).pieces == ((0, 4), (4, 10))
    assert queue.complete(whole.lease, 0.8)
    assert queue.find(part.lease, "small", 0.9) is None and queue.find(rest.lease, "other", 0.9) is None


def test_what_is_left_of_a_late_lease_is_in_order_however_often_it_is_cut():
    queue = joined("big", "small", "smaller")
    offer(queue, 10)
    (whole,) = queue.lease("big", 10, 0.0)
    queue.expire(0.6)
    (part,) = queue.lease("small", 4, 0.6)
    queue.give_back([part.lease], "small", 0.7)
    assert [(grant.start, grant.stop) for grant in queue.lease("smaller", 2, 0.7)] == [(0, 2)]
    assert queue.find(whole.lease, "big", 0.8).pieces == ((0, 2), (2, 4), (4, 10))


def test_each_lease_of_a_stuck_worker_is_found_late_at_its_own_time():
    queue = joined("a", "b")
    offer(queue, 4, 4)
    queue.lease("a", 4, 0.0)
    queue.lease("a", 4, 0.3)
    assert [overdue.leases for overdue in queue.expire(0.6)] == [1]
    assert [overdue.leases for overdue in queue.expire(0.9)] == [1]
    assert len(queue.lease("b", 8, 0.9)) == 2


def test_a_failure_on_a_late_lease_counts_for_every_piece_of_it():
    queue = joined("big", "small")
    offer(queue, 10)
    (whole,) = queue.lease("big", 10, 0.0)
    queue.expire(0.6)
    (part,) = queue.lease("small", 4, 0.6)
    assert queue.find(whole.lease, "big", 0.7)
    assert queue.fail(whole.lease, "boom", 0.7).requeued == 0, "one is at work on, the other waits already"
    assert queue.lease("big", 10, 0.7) == [], "it goes to the other first"
    queue.complete(part.lease, 0.8)
    (rest,) = queue.lease("small", 10, 0.8)
    assert (rest.start, rest.stop) == (4, 10)


def test_a_task_that_hangs_three_workers_is_given_to_no_fourth_and_is_poison_in_the_end():
    queue = joined("a", "b", "c", "d")
    offer(queue, 8, 8)
    grants = spread(queue, "a", "b", "c")
    assert [grant.own_pass for grant in grants] == [False, False, True]
    (innocent,) = queue.lease("d", 16, 3.0)
    assert innocent.batch == 1, "the fourth worker is spared"
    queue.complete(innocent.lease, 3.1)
    assert queue.verdicts(2.6 + 59.9) == []
    (poison,) = queue.verdicts(2.6 + 60.1)
    assert (poison.batch, poison.samples) == (0, range(8))
    assert poison.attempts == [
        "worker a has held this task for 63 s without an answer, although it answers pings",
        "worker b has held this task for 62 s without an answer, although it answers pings",
        "worker c has held only this task for 61 s without an answer, although it answers pings",
    ]
    assert queue.verdicts(1e9) == []


def test_a_task_beside_one_that_hangs_is_found_innocent():
    queue = joined("a", "b", "c", "d")
    offer(queue, 4, 4)
    assert len(queue.lease("a", 8, 0.0)) == 2
    queue.expire(0.6)
    assert len(queue.lease("b", 8, 0.6)) == 2
    queue.expire(1.2)
    (hanging,) = queue.lease("c", 8, 1.2)
    (beside,) = queue.lease("d", 8, 1.2)
    assert hanging.own_pass and beside.own_pass and beside.batch == 1
    queue.complete(beside.lease, 1.3)
    queue.expire(1.8)
    assert [poison.batch for poison in queue.verdicts(100.0)] == [0]


@pytest.mark.parametrize("word", ["answer", "failure", "return", "loss"])
def test_one_word_of_a_worker_that_seemed_to_hang_ends_the_wait_for_a_verdict(word):
    queue = joined("a", "b", "c", "d")
    offer(queue, 8)
    first, *_ = spread(queue, "a", "b", "c")
    if word == "answer":
        assert queue.find(first.lease, "a", 50.0) and queue.complete(first.lease, 50.0)
        assert queue.verdicts(1e9) == [] and queue.deliver() == 0
    elif word == "return":
        assert queue.give_back([first.lease], "a", 50.0).requeued == 1
        (again,) = queue.lease("d", 8, 50.0)
        assert again.own_pass and queue.verdicts(1e9) == []
    elif word == "failure":
        queue.find(first.lease, "a", 50.0)
        assert queue.fail(first.lease, "boom", 50.0).requeued == 0
        assert queue.lease("d", 8, 50.0) == [], "a failure and two hangs are three attempts"
        (poison,) = queue.verdicts(2.6 + 60.1)
        assert poison.attempts[0] == "boom" and len(poison.attempts) == 3
    else:
        queue.lose("a", "killed", 50.0)
        assert queue.lease("d", 8, 50.0) == []
        (poison,) = queue.verdicts(2.6 + 60.1)
        assert "a was lost while it held this task: killed" in poison.attempts[0]


def test_people_read_the_names_that_workers_gave_and_not_the_queues_own():
    queue = LabelQueue(["t"], FLOW)
    for worker in "abc":
        queue.join(f"{worker}~0f3", "t", worker)
    offer(queue, 8)
    spread(queue, "a~0f3", "b~0f3", "c~0f3")
    queue.lose("a~0f3", "killed", 50.0)
    (poison,) = queue.verdicts(1e9)
    assert [attempt.split(" has ")[0].split(" was ")[0] for attempt in poison.attempts] == [
        *("worker a", "worker b", "worker c"),
    ]
    assert "~" not in "".join(poison.attempts)


def test_losses_and_a_hang_add_up():
    queue = joined("a", "b", "c", "d")
    offer(queue, 8)
    for worker in "ab":
        queue.lease(worker, 8, 0.0)
        queue.lose(worker, "killed", 0.0)
    (alone,) = queue.lease("c", 8, 0.0)
    assert alone.own_pass
    queue.expire(0.6)
    assert queue.lease("d", 8, 0.6) == [] and queue.verdicts(60.0) == []
    (poison,) = queue.verdicts(61.0)
    assert len(poison.attempts) == 3


def test_a_lone_worker_that_hangs_accuses_nothing_for_ever():
    queue = joined("a")
    offer(queue, 8)
    (grant,) = queue.lease("a", 8, 0.0)
    queue.expire(0.6)
    assert queue.lease("a", 8, 1e6) == [] and queue.verdicts(1e6) == []
    assert queue.find(grant.lease, "a", 1e6) and queue.complete(grant.lease, 1e6)


def test_a_stuck_worker_is_not_waited_for():
    """Neither to be emptied for a task that must be alone, nor to try what another one failed on."""
    queue = joined("a", "b", "stuck", "well", flow=Flow(first_deadline_s=10.0, min_deadline_s=10.0))
    offer(queue, 4, 4, 4)
    queue.lease("a", 4, 0.0)
    queue.lose("a", "killed", 0.0)
    queue.lease("b", 4, 0.0)
    (held,) = queue.lease("stuck", 4, 0.0)
    (other,) = queue.lease("well", 4, 0.0)
    queue.lose("b", "killed", 0.0)
    assert queue.lease("stuck", 4, 0.0) == [], "it is being emptied for the task that must be alone"
    queue.find(other.lease, "well", 9.0)
    queue.fail(other.lease, "boom", 9.0)
    queue.expire(10.1)
    (alone,) = queue.lease("well", 4, 10.1)
    assert alone.own_pass and alone.batch == 0
    queue.complete(alone.lease, 10.2)
    assert queue.holds(held.lease)
    assert sorted(grant.batch for grant in queue.lease("well", 8, 10.3)) == [1, 2]


def test_giving_a_batch_up_closes_leases_that_are_overdue_and_tasks_that_await_a_verdict():
    queue = joined("a", "b", "c", "d")
    offer(queue, 8, 8)
    first, *_ = spread(queue, "a", "b", "c")
    queue.abandon(0)
    assert queue.ready() and queue.deliver() == 0
    assert queue.find(first.lease, "a", 9.0) is None and queue.verdicts(1e9) == []


def test_three_that_seemed_to_hang_and_fail_after_all_make_it_poison_once_and_at_once():
    queue = joined("a", "b", "c", "d")
    offer(queue, 8)
    grants = spread(queue, "a", "b", "c")
    poison = []
    for worker, grant in zip("abc", grants, strict=True):
        assert queue.find(grant.lease, worker, 10.0)
        poison += queue.fail(grant.lease, f"boom of {worker}", 10.0).poison
        queue.validate(10.0)
    (one,) = poison
    assert one.attempts == ["boom of a", "boom of b", "boom of c"]
    assert queue.verdicts(1e9) == [] and queue.lease("d", 8, 10.0) == []


def test_a_queue_that_is_cleared_withholds_nothing_any_more():
    queue = joined("a", "b", "c")
    offer(queue, 8)
    spread(queue, "a", "b", "c")
    queue.clear()
    assert queue.verdicts(1e9) == [] and queue.open_batches == 0
    queue.validate(1e9)
