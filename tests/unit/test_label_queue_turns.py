"""Whose turn it is at the label queue: who is emptied, woken or asked again, and what is forgotten."""

from __future__ import annotations

import pytest

from edldist.student.queue.flow import Flow
from edldist.student.queue.queue import LabelQueue
from tests.unit.queues import fill, joined

ROUSED_AT_MOST = 1_000


def suspected(queue: LabelQueue, tasks: int) -> None:
    """So many tasks of four samples, with which two workers were lost: each must be leased alone."""
    fill(queue, *[4] * tasks)
    for name in ("lost1", "lost2"):
        queue.join(name, "teacher")
        assert len(queue.lease(name, 4 * tasks, 0.0)) == tasks
        queue.lose(name, "killed", 0.0)


def busy(queue: LabelQueue, *workers: str) -> dict[str, int]:
    """Each of them gets a lease, which it holds, before anything is suspected; they ask in this order."""
    fill(queue, *[4] * len(workers))
    return {worker: queue.lease(worker, 4, 0.0)[0].lease for worker in workers}


# --- a task that must be leased alone -----------------------------------------------------------------


def test_a_task_that_must_be_alone_wakes_a_worker_that_holds_nothing():
    queue = joined("busy", "free")
    busy(queue, "busy")
    for worker in ("busy", "free"):
        assert queue.lease(worker, 4, 0.0) == []
    suspected(queue, 1)
    queue.validate(0.0)
    assert queue.rouse("teacher", 1.0, ROUSED_AT_MOST) == ["free"]


def test_a_task_that_must_be_alone_is_granted_whole_however_little_room_there_is():
    """Cut in two, it would have to be tried out twice."""
    queue = joined("small")
    suspected(queue, 1)
    (grant,) = queue.lease("small", 1, 0.0)
    assert grant.own_pass and (grant.start, grant.stop) == (0, 4)


def test_what_need_not_be_alone_wakes_a_worker_that_is_busy():
    queue = joined("busy")
    busy(queue, "busy")
    assert queue.lease("busy", 4, 0.0) == []
    fill(queue, 4)
    assert queue.rouse("teacher", 1.0, ROUSED_AT_MOST) == ["busy"]


def test_one_worker_after_the_other_is_emptied_for_two_tasks_that_must_be_alone():
    queue = joined("c", "d")
    held = busy(queue, "c", "d")
    suspected(queue, 2)
    fill(queue, 4, 4)
    assert queue.lease("c", 4, 1.0) == [], "it is being emptied"
    queue.complete(held["c"], 1.0)
    assert queue.lease("c", 4, 1.0)[0].own_pass
    assert queue.lease("d", 4, 1.0) == [], "now this one is"
    queue.complete(held["d"], 1.0)
    assert queue.lease("d", 4, 1.0)[0].own_pass


@pytest.mark.parametrize("gone", ["loss", "goodbye"])
def test_another_worker_is_emptied_when_the_one_that_was_is_gone(gone: str):
    queue = joined("c", "d", "e")
    busy(queue, "c", "d", "e")
    suspected(queue, 1)
    fill(queue, 4, 4, 4)
    assert queue.lease("c", 4, 1.0) == [] and queue.lease("d", 4, 1.0)
    queue.leave("e", 1.0)
    assert queue.lease("d", 4, 1.0), "that was none of the one that is being emptied"
    if gone == "loss":
        queue.lose("c", "killed", 1.0)
    else:
        queue.leave("c", 1.0)
    queue.validate(1.0)
    assert queue.lease("d", 4, 1.0) == [], "now this one is"


def test_another_worker_is_emptied_when_the_one_that_was_is_overdue():
    queue = joined("c", "d", flow=Flow(first_deadline_s=10.0, min_deadline_s=10.0))
    busy(queue, "c")
    fill(queue, 4)
    queue.lease("d", 4, 5.0)
    suspected(queue, 1)
    fill(queue, 4)
    assert queue.lease("c", 4, 9.0) == []
    assert [overdue.worker for overdue in queue.expire(11.0)] == ["c"]
    assert queue.lease("d", 4, 11.0) == [], "it will not be empty soon"


def test_a_worker_that_is_overdue_changes_nothing_about_who_is_being_emptied():
    queue = joined("c", "d", "e", flow=Flow(first_deadline_s=10.0, min_deadline_s=10.0))
    busy(queue, "d")
    fill(queue, 4, 4)
    for worker in "ce":
        queue.lease(worker, 4, 5.0)
    suspected(queue, 1)
    fill(queue, 4)
    assert queue.lease("c", 4, 9.0) == []
    assert [overdue.worker for overdue in queue.expire(11.0)] == ["d"]
    assert queue.lease("e", 4, 11.0) != []


def test_a_queue_that_is_cleared_empties_nobody_any_more():
    queue = joined("c", "d")
    busy(queue, "c", "d")
    suspected(queue, 1)
    assert queue.lease("c", 4, 1.0) == []
    queue.clear()
    busy(queue, "c", "d")
    suspected(queue, 1)
    fill(queue, 4)
    assert queue.lease("d", 4, 1.0) == [], "now this one is being emptied"


def test_a_task_that_waits_for_others_when_its_late_worker_fails_on_it_may_be_poison_at_once():
    queue = joined("late", "other", flow=Flow(max_attempts=1, first_deadline_s=1.0, min_deadline_s=1.0))
    fill(queue, 4)
    (grant,) = queue.lease("late", 4, 0.0)
    assert queue.expire(2.0)[0].returned.requeued == 1
    assert len(queue.fail(grant.lease, "boom", 3.0).poison) == 1
    queue.validate(3.0)
    assert queue.lease("other", 4, 3.0) == []


def test_who_proves_alive_takes_its_own_loss_back_and_no_other():
    queue = joined("a", "b", "c", flow=Flow(max_attempts=2))
    fill(queue, 4)
    for worker in "abc":
        assert queue.lease(worker, 4, 0.0)
        queue.lose(worker, "killed", 0.0)
    queue.forgive("a", 1.0)
    (poison,) = queue.verdicts(100.0)
    assert [text[:17] for text in poison.attempts] == ["worker b was lost", "worker c was lost"]


def test_a_batch_that_is_given_up_changes_nothing_for_the_tasks_of_others():
    queue = joined("c", "d")
    suspected(queue, 2)
    for worker in ("c", "d"):
        assert queue.lease(worker, 4, 0.0)[0].own_pass
        queue.lose(worker, "killed", 0.0)
    queue.abandon(0)
    assert [poison.batch for poison in queue.verdicts(100.0)] == [1]


# --- what a worker gets, and how many are woken for it --------------------------------------------------


def woken(queue: LabelQueue, room: int) -> list[str]:
    """Who of three sleepers is woken for what waits."""
    for worker in "abc":
        queue.join(worker, "teacher")
        queue.sleep(worker, room)
    return queue.rouse("teacher", 0.0, ROUSED_AT_MOST)


@pytest.mark.parametrize(("samples", "who"), [(1, "a"), (2, "ab"), (3, "abc")])
def test_as_many_are_woken_as_have_room_for_what_waits(samples: int, who: str):
    queue = joined()
    fill(queue, samples)
    assert woken(queue, 1) == list(who)


@pytest.mark.parametrize("came_back", [False, True])
def test_where_cuts_are_fixed_as_many_are_woken_as_there_are_cuts(came_back: bool):
    queue = joined(flow=Flow(task_size=8))
    fill(queue, 6, 8) if came_back else fill(queue, 14)
    if came_back:
        queue.join("gone", "teacher")
        assert len(queue.lease("gone", 6, 0.0)) == 1
        queue.leave("gone", 0.0)
    assert woken(queue, 2) == list("abc" if came_back else "ab")


def test_cuts_that_fill_a_pull_exactly_are_in_it():
    queue = joined("a", flow=Flow(task_size=4))
    fill(queue, 12)
    assert [grant.cost for grant in queue.lease("a", 8, 0.0)] == [4, 4]


def test_a_task_on_which_a_worker_has_failed_hides_none_behind_it():
    queue = joined("a", "b")
    fill(queue, 4, 4)
    first, second = queue.lease("a", 8, 0.0)
    queue.fail(first.lease, "boom", 0.0)
    queue.give_back([second.lease], "a", 0.0)
    assert [grant.batch for grant in queue.lease("a", 8, 0.0)] == [1]


def test_who_pulls_before_it_is_woken_sleeps_no_more() -> None:
    queue = joined("w")
    assert queue.lease("w", 4, 0.0) == [] and queue.asleep("w")
    fill(queue, 4)
    assert queue.lease("w", 2, 0.0) and not queue.asleep("w")
    assert queue.rouse("teacher", 0.0, ROUSED_AT_MOST) == []


# --- a second lease -----------------------------------------------------------------------------------


def test_who_takes_a_second_lease_is_awake_and_may_take_more_beside_it():
    queue = joined("slow", "idle")
    fill(queue, 4)
    queue.lease("slow", 4, 0.0)
    assert queue.lease("idle", 4, 5.0) == [] and queue.asleep("idle")
    second = queue.hedge("idle", 4, 5.0, 1.0)
    assert second is not None and not second.own_pass and not queue.asleep("idle")
    fill(queue, 4)
    assert queue.lease("idle", 4, 5.0)


def test_who_is_woken_for_a_second_lease_is_not_expected_to_take_what_comes():
    queue = joined("slow", "idle", "other")
    fill(queue, 4)
    queue.lease("slow", 4, 0.0)
    for worker in ("idle", "other"):
        assert queue.lease(worker, 4, 5.0) == []
    assert queue.rouse_to_hedge("teacher", 5.0, 1.0) == ["idle"]
    fill(queue, 1)
    assert queue.rouse("teacher", 5.0, ROUSED_AT_MOST) == ["other"]


def test_no_second_lease_is_for_a_worker_that_is_quarantined_or_stuck():
    queue = joined("slow", "sick", "stuck", flow=Flow(first_deadline_s=10.0, min_deadline_s=10.0))
    fill(queue, 4, 4)
    queue.lease("stuck", 4, 0.0)
    queue.give_back(queue.leases_of("stuck"), "stuck", 0.0)
    queue.lease("slow", 4, 0.0)
    queue.lease("stuck", 4, 0.0)
    queue.give_back(queue.leases_of("slow"), "slow", 0.0)
    queue.lease("slow", 4, 8.0)
    assert [overdue.worker for overdue in queue.expire(11.0)] == ["stuck"]
    for worker in ("sick", "stuck"):
        queue.sleep(worker, 4)
    queue.quarantine("sick")
    assert queue.rouse_to_hedge("teacher", 11.0, 1.0) == []
    queue.parole("sick")
    assert queue.rouse_to_hedge("teacher", 11.0, 1.0) == ["sick"]


def test_tasks_of_another_teacher_or_with_a_second_lease_or_overdue_or_alone_get_no_second_lease():
    queue = LabelQueue(["t", "u"], Flow(first_deadline_s=10.0, min_deadline_s=10.0))
    for worker, teacher in (("slow", "u"), ("late", "t"), ("idle", "t"), ("other", "u")):
        queue.join(worker, teacher)
    queue.offer(4, nbytes=4)
    queue.lease("slow", 4, 0.0)
    assert queue.hedge("other", 4, 5.0, 1.0) is not None and queue.hedge("other", 4, 6.0, 1.0) is None
    assert queue.hedge("idle", 4, 5.0, 1.0) is None, "what is leased is the other teacher's"
    queue.lease("late", 4, 6.0)
    assert queue.hedge("idle", 4, 7.0, 1.0) is None, "one second is not more than one second"
    assert queue.hedge("idle", 4, 7.5, 1.0) is not None


def test_a_task_with_which_one_worker_was_lost_may_have_a_second_lease():
    queue = joined("lost", "slow", "idle")
    fill(queue, 4)
    queue.lease("lost", 4, 0.0)
    queue.lose("lost", "killed", 0.0)
    queue.lease("slow", 4, 0.0)
    assert queue.hedge("idle", 4, 5.0, 1.0) is not None, "it is in time, and accuses nothing"


def test_a_second_lease_waits_for_three_times_what_the_idle_worker_itself_takes():
    queue = joined("slow", "idle")
    fill(queue, 4, 4)
    (first,) = queue.lease("idle", 4, 0.0)
    queue.complete(first.lease, 2.0)
    queue.deliver()
    queue.lease("slow", 4, 10.0)
    assert queue.hedge("idle", 4, 16.0, 1.0) is None, "six seconds are three times two, and not more"
    assert queue.hedge("idle", 4, 16.5, 1.0) is not None


# --- what is kept ---------------------------------------------------------------------------------------


def test_workers_of_one_teacher_that_sleep_are_sleepers_of_the_queue():
    queue = LabelQueue(["t", "u"])
    queue.join("a", "t")
    assert not queue.sleepers
    queue.sleep("a", 1)
    assert queue.sleepers


def test_a_failed_task_is_not_kept_for_workers_of_another_teacher():
    queue = LabelQueue(["t", "u"])
    queue.join("a", "t")
    queue.join("b", "u")
    queue.offer(4, nbytes=4)
    (grant,) = queue.lease("a", 4, 0.0)
    queue.fail(grant.lease, "boom", 0.0)
    assert len(queue.lease("a", 4, 0.0)) == 1


def test_of_a_batch_that_was_given_up_and_delivered_nothing_is_kept():
    queue = joined("a")
    fill(queue, 4)
    queue.abandon(0)
    assert queue._blame.gave_up(0)
    queue.deliver()
    assert not queue._blame.gave_up(0)


def test_a_cleared_queue_gives_up_on_nothing():
    queue = joined("a")
    fill(queue, 4)
    queue.abandon(0)
    queue.clear()
    assert not queue._blame.gave_up(0)
