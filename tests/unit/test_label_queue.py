"""The label queue delivers every sample once and in order, whatever the workers do."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.errors import ConfigError
from edldist.student.queue.flow import Flow
from edldist.student.queue.outcomes import Overdue, Returned
from edldist.student.queue.queue import LabelQueue
from edldist.student.queue.wanted import Wanted
from tests.unit.queues import fill, finish, joined

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "offer",
                "pull",
                "answer",
                "stale",
                "fail",
                "lose",
                "return",
                "hedge",
                "expire",
                "deliver",
                "miss",
                "again",
            ]
        ),
        st.integers(0, 5),
        st.integers(1, 40),
    ),
    max_size=120,
)


@settings(max_examples=300)
@given(
    actions=ACTIONS,
    teachers=st.sampled_from([["a"], ["a", "b"]]),
    task_size=st.sampled_from([None, 1, 7, 16]),
    fixed=st.booleans(),
)
def test_any_order_of_events_delivers_each_sample_once_in_order(actions, teachers, task_size, fixed):
    flow = Flow(task_size=task_size, fixed=fixed, max_attempts=1_000_000)
    queue = LabelQueue(teachers, flow)
    worker_names = [f"{teacher}{k}" for teacher in teachers for k in range(3)]
    sizes: dict[int, int] = {}
    labelled: dict[tuple[str, int], list[int]] = {}
    grants: list[tuple[str, object]] = []
    answered: list[tuple[str, int]] = []
    delivered: list[int] = []
    passed_over: dict[int, frozenset[str]] = {}
    now = 0.0

    def answer(worker, grant):
        found = queue.find(grant.lease, worker, now)
        if found is None:
            return
        assert (found.batch, found.start, found.stop) == (grant.batch, grant.start, grant.stop)
        marks = labelled.setdefault((grant.teacher, grant.batch), [0] * sizes[grant.batch])
        for position in range(grant.start, grant.stop):
            marks[position] += 1
        queue.grow(grant.batch, grant.stop - grant.start)
        queue.complete(grant.lease, now)
        answered.append((worker, grant.lease))

    def deliver():
        number = queue.deliver()
        for teacher in teachers:
            marks = labelled.get((teacher, number), [])
            if teacher in passed_over.get(number, ()):
                assert marks != [1] * sizes[number] and set(marks) <= {0, 1}
            else:
                assert marks == [1] * sizes[number]
        delivered.append(number)

    for verb, pick, amount in actions:
        now += 1.0
        worker = worker_names[pick % len(worker_names)]
        teacher = worker[0]
        if verb == "offer":
            sizes[queue.offer(amount - 1, amount)] = amount - 1
        elif verb == "pull":
            queue.join(worker, teacher)
            got = queue.lease(worker, amount, now)
            if task_size is None and not fixed:
                assert sum(g.stop - g.start for g in got) <= amount or [g.own_pass for g in got] == [True]
            grants += [(worker, g) for g in got]
        elif verb == "hedge":
            queue.join(worker, teacher)
            second = queue.hedge(worker, amount, now, older_than_s=0.5)
            grants += [(worker, second)] if second else []
        elif verb == "answer" and grants:
            answer(*grants.pop(pick % len(grants)))
        elif verb == "stale" and answered:
            before = queue.duplicates
            assert (
                queue.find(answered[pick % len(answered)][1], answered[pick % len(answered)][0], now) is None
            )
            assert queue.duplicates == before + 1
        elif verb == "fail" and grants:
            name, grant = grants.pop(pick % len(grants))
            if queue.find(grant.lease, name, now):
                assert not queue.fail(grant.lease, "boom", 0.0).poison
        elif verb == "lose" and worker in queue._workers:
            assert not queue.lose(worker, "killed", now=0.0).poison
        elif verb == "return" and worker in queue._workers:
            queue.give_back([g.lease for w, g in grants if w == worker], worker, now)
        elif verb == "expire":
            queue.expire(now + amount * 100)
        elif verb == "miss" and teacher not in queue.served:
            if lacking := queue.lacks_only({teacher}):
                passed_over[queue.head] = lacking
                queue.pass_over(lacking)
                assert lacking == {teacher} and queue.ready()
        elif verb == "again" and (numbers := list(queue.numbers)):
            number = numbers[pick % len(numbers)]
            marks = labelled.get((teacher, number), [0] * sizes[number])
            if teacher not in passed_over.get(number, ()):
                assert queue.ask_again(number, teacher, Wanted.whole(sizes[number]), sum(marks)) == sum(marks)
                labelled.pop((teacher, number), None)
        elif verb == "deliver" and queue.ready():
            deliver()
        queue.validate(now)

    # Whatever happened, healthy workers finish the rest.
    for name in [name for name, _ in queue._workers]:
        queue.lose(name, "end", now=0.0)
    for teacher in teachers:
        queue.join(f"{teacher}-last", teacher)
    for _ in range(10_000):
        while queue.ready():
            deliver()
        if not queue.open_batches:
            break
        for teacher in teachers:
            for grant in queue.lease(f"{teacher}-last", 13, now):
                answer(f"{teacher}-last", grant)
    assert delivered == sorted(sizes)
    assert queue.nbytes == 0


def test_a_late_answer_after_a_loss_is_a_counted_duplicate():
    queue = joined("w1", "w2")
    fill(queue, 8)
    (first,) = queue.lease("w1", 8, now=0.0)
    assert queue.lose("w1", "kill", now=0.0).requeued == 1
    (second,) = queue.lease("w2", 8, now=0.0)
    assert queue.find(first.lease, "w1", 0.0) is None
    assert queue.duplicates == 1
    assert queue.complete(second.lease, now=1.0)


def test_another_workers_lease_cannot_be_answered():
    queue = joined("w1", "w2")
    fill(queue, 8)
    (grant,) = queue.lease("w1", 8, now=0.0)
    assert queue.find(grant.lease, "w2", 0.0) is None
    assert queue.find(grant.lease, "w1", 0.0) is not None


def test_lost_tasks_go_back_to_the_front_in_batch_order():
    queue = joined("w1", "w2", "w3")
    fill(queue, 4, 4, 4)
    queue.lease("w1", 4, 0.0)
    queue.lease("w2", 4, 0.0)
    queue.lose("w2", "kill", now=0.0)
    queue.lose("w1", "kill", now=0.0)
    assert [g.batch for g in queue.lease("w3", 12, 0.0)] == [0, 1, 2]


def test_a_returned_task_is_split_for_a_smaller_worker_unless_cuts_are_fixed():
    queue = joined("big", "small")
    fill(queue, 10)
    queue.lease("big", 10, 0.0)
    queue.lose("big", "kill", now=0.0)
    (grant,) = queue.lease("small", 4, 0.0)
    assert (grant.start, grant.stop) == (0, 4)

    queue = joined("big", "small", flow=Flow(task_size=8))
    fill(queue, 10)
    queue.lease("big", 8, 0.0)
    queue.lose("big", "kill", now=0.0)
    (grant,) = queue.lease("small", 4, 0.0)
    assert (grant.start, grant.stop) == (0, 8)


def test_three_failures_by_different_workers_are_poison_with_their_errors():
    queue = joined("w1", "w2", "w3")
    fill(queue, 6)
    for worker in ("w1", "w2", "w3"):
        assert worker == "w1" or not queue.has_work("w1", 0.0)
        (grant,) = queue.lease(worker, 6, 0.0)
        returned = queue.fail(grant.lease, f"traceback of {worker}", 0.0)
    (poison,) = returned.poison
    assert (poison.batch, list(poison.samples)) == (0, list(range(6)))
    assert poison.attempts == ["traceback of w1", "traceback of w2", "traceback of w3"]


def test_a_lone_worker_may_use_up_the_attempts():
    queue = joined("w1")
    fill(queue, 6)
    for _ in range(3):
        (grant,) = queue.lease("w1", 6, 0.0)
        returned = queue.fail(grant.lease, "boom", 0.0)
    assert len(returned.poison) == 1


def test_what_no_attempt_can_label_is_poison_when_a_second_worker_says_so_too():
    queue = joined("w1", "w2", "w3")
    fill(queue, 6)
    (grant,) = queue.lease("w1", 6, 0.0)
    assert queue.fail(grant.lease, "too long for w1", 0.0, certain=True) == Returned(1, [])
    (grant,) = queue.lease("w2", 6, 0.0)
    (poison,) = queue.fail(grant.lease, "too long for w2", 0.0, certain=True).poison
    assert poison.attempts == ["too long for w1", "too long for w2"]
    assert poison.blameless == ["w1", "w2"]


def test_the_only_worker_of_a_teacher_need_not_be_confirmed():
    queue = LabelQueue(["teacher", "other"])
    queue.join("w1", "teacher")
    queue.join("w2", "other")
    fill(queue, 6)
    (grant,) = queue.lease("w1", 6, 0.0)
    (poison,) = queue.fail(grant.lease, "too long", 0.0, certain=True).poison
    assert (poison.attempts, poison.blameless) == (["too long"], ["w1"])


def test_a_worker_that_is_wrong_about_it_poisons_nothing_alone():
    queue = joined("sick", "well")
    fill(queue, 6)
    (grant,) = queue.lease("sick", 6, 0.0)
    queue.fail(grant.lease, "too long", 0.0, certain=True)
    assert finish(queue, "well", 6) == 1 and not queue.verdicts(1e9)


def test_other_failures_confirm_nothing():
    queue = joined("w1", "w2", "w3")
    fill(queue, 6)
    for worker, certain in (("w1", False), ("w2", True)):
        (grant,) = queue.lease(worker, 6, 0.0)
        assert not queue.fail(grant.lease, f"of {worker}", 0.0, certain=certain).poison
    (grant,) = queue.lease("w3", 6, 0.0)
    (poison,) = queue.fail(grant.lease, "of w3", 0.0).poison
    assert len(poison.attempts) == 3 and not poison.blameless


def test_a_failed_task_is_not_kept_for_ever_for_a_worker_that_never_asks():
    queue = joined("well", "stuck", "new", flow=Flow(first_deadline_s=300.0, min_deadline_s=10.0))
    fill(queue, 4, 6)
    assert finish(queue, "stuck", 4) == 1
    (grant,) = queue.lease("well", 6, 0.0)
    queue.fail(grant.lease, "boom", 20.0)
    queue.leave("new", 20.0)
    assert not queue.has_work("well", 29.9) and queue.lease("well", 6, 29.9) == []
    assert queue.has_work("well", 30.1)
    (again,) = queue.lease("well", 6, 30.1)
    assert (again.batch, again.start, again.stop) == (1, 0, 6)


def test_a_failed_task_is_not_kept_for_a_worker_that_is_quarantined():
    queue = joined("well", "sick")
    fill(queue, 6)
    (grant,) = queue.lease("well", 6, 0.0)
    queue.quarantine("sick")
    queue.fail(grant.lease, "boom", 0.0)
    assert queue.has_work("well", 0.0)
    assert queue.lease("sick", 1, 0.0), "it asks again"
    assert not queue.has_work("well", 0.0) and queue.has_work("sick", 0.0)


def test_a_task_that_kills_workers_is_isolated_and_costs_three():
    queue = joined("w1", "w2", "w3", "w4")
    fill(queue, 4, 4)
    for worker in ("w1", "w2"):
        grants = queue.lease(worker, 8, 0.0)
        assert len(grants) == 2 and not grants[0].own_pass
        assert not queue.lose(worker, "kill -9", now=0.0).poison
    (alone,) = queue.lease("w3", 8, 0.0)
    assert alone.own_pass and (alone.batch, alone.start) == (0, 0)
    assert queue.lease("w3", 8, 0.0) == []
    assert not queue.lose("w3", "kill -9", now=10.0).poison
    assert not queue.verdicts(12.9)
    (poison,) = queue.verdicts(13.0)
    assert poison.batch == 0 and len(poison.attempts) == 3
    (innocent,) = queue.lease("w4", 8, 0.0)
    assert innocent.batch == 1
    assert queue.complete(innocent.lease, 1.0)


def test_workers_that_turn_out_alive_acquit_the_task_they_held():
    queue = joined("w1", "w2", "w3", "w4")
    fill(queue, 4)
    for worker in ("w1", "w2", "w3"):
        queue.lease(worker, 4, 0.0)
        queue.lose(worker, "its connection broke", now=0.0)
    assert queue.lease("w4", 4, 0.1) == [] and not queue.has_work("w4", 0.0)
    for worker in ("w1", "w2", "w3"):
        queue.join(worker, "teacher")
        queue.forgive(worker, 0.0)
    assert queue.verdicts(100.0) == []
    (grant,) = queue.lease("w4", 4, 0.2)
    assert not grant.own_pass
    assert queue.complete(grant.lease, 0.3)


def test_no_task_is_forgiven_for_ever():
    queue = joined(flow=Flow(verdict_s=1.0))
    fill(queue, 4)
    for round_ in range(20):
        name = f"w{round_}"
        queue.join(name, "teacher")
        if not queue.lease(name, 4, 0.0):
            break
        queue.lose(name, "its connection broke", now=0.0)
        queue.forgive(name, 0.0)
    assert len(queue.verdicts(1.0)) == 1


def test_a_busy_worker_is_emptied_for_a_task_that_must_be_alone_while_others_go_on():
    queue = joined("w1", "w2", "w3", "w4")
    fill(queue, 4, 4, 4, 4, 4)
    queue.lease("w1", 4, 0.0)
    queue.lose("w1", "kill", now=0.0)
    queue.lease("w2", 4, 0.0)
    busy = {w: queue.lease(w, 4, 0.0)[0] for w in ("w3", "w4")}
    queue.lose("w2", "kill", now=0.0)
    assert queue.lease("w3", 4, 0.0) == []
    assert not queue.has_work("w3", 0.0)
    assert queue.lease("w4", 4, 0.0) != []
    queue.complete(busy["w3"].lease, 1.0)
    assert queue.has_work("w3", 0.0)
    assert queue.lease("w3", 4, 0.0)[0].own_pass


def test_a_free_worker_takes_a_task_that_must_be_alone_from_one_that_cannot_be_emptied():
    queue = joined("w1", "w2", "stuck", "free")
    fill(queue, 4, 4)
    queue.lease("w1", 4, 0.0)
    queue.lose("w1", "kill", now=0.0)
    queue.lease("w2", 4, 0.0)
    queue.lease("stuck", 4, 0.0)
    queue.lose("w2", "kill", now=0.0)
    assert queue.lease("stuck", 4, 0.0) == []
    assert queue.has_work("free", 0.0)
    assert queue.lease("free", 4, 0.0)[0].own_pass


def test_a_hedge_is_offered_only_to_a_worker_that_could_take_it():
    queue = joined("big", "small")
    fill(queue, 10)
    queue.lease("big", 10, now=0.0)
    assert queue.lease("small", 4, now=0.0) == []
    assert queue.rouse_to_hedge("teacher", now=5.0, older_than_s=1.0) == []
    assert queue.hedge("small", 4, now=5.0, older_than_s=1.0) is None
    assert queue.lease("small", 10, now=5.0) == []
    assert queue.rouse_to_hedge("teacher", now=5.0, older_than_s=1.0) == ["small"]
    assert not queue.asleep("small") and queue.hedge("small", 10, now=5.0, older_than_s=1.0)


def test_a_lease_that_is_given_back_twice_comes_back_once():
    queue = joined("w1")
    fill(queue, 4)
    (grant,) = queue.lease("w1", 4, 0.0)
    assert queue.give_back([grant.lease, grant.lease, 7], "w1", 0.0).requeued == 1
    assert finish(queue, "w1") == 1


def test_clear_forgets_what_came_back():
    queue = joined("w1", "w2")
    fill(queue, 8)
    queue.lease("w1", 8, 0.0)
    queue.lose("w1", "kill", now=0.0)
    queue.clear()
    fill(queue, 3)
    assert [grant.batch for grant in queue.lease("w2", 100, 0.0)] == [1]


def test_goodbye_and_return_blame_nobody():
    queue = joined("w1")
    fill(queue, 4)
    for round_ in range(5):
        queue.join(f"x{round_}", "teacher")
        (grant,) = queue.lease(f"x{round_}", 4, 0.0)
        assert not grant.own_pass
        queue.leave(f"x{round_}", 0.0)
    assert queue.requeued == 5
    assert finish(queue, "w1") == 1


def test_what_the_loop_could_take_ends_at_the_first_batch_without_labels():
    queue = joined("slow", "w1")
    fill(queue, 4, 4, 4)
    assert finish(queue, "w1", 4) == 1
    queue.lease("slow", 4, 0.0)
    assert finish(queue, "w1") == 1
    assert (queue.labelled_batches, queue.deliverable_batches) == (2, 1)
    queue.deliver()
    assert (queue.labelled_batches, queue.deliverable_batches) == (1, 0)


def test_the_first_of_two_hedged_answers_wins():
    queue = joined("slow", "idle")
    fill(queue, 4)
    (slow,) = queue.lease("slow", 4, now=0.0)
    assert queue.hedge("idle", 4, now=0.1, older_than_s=1.0) is None
    second = queue.hedge("idle", 4, now=5.0, older_than_s=1.0)
    assert queue.hedge("idle", 4, now=9.0, older_than_s=1.0) is None
    assert queue.complete(second.lease, now=5.5)
    assert queue.find(slow.lease, "slow", 0.0) is None
    assert (queue.hedged, queue.duplicates, queue.done) == (1, 1, 1)


def test_deadlines_are_learnt_from_the_worker_itself():
    queue = joined("w1", flow=Flow(first_deadline_s=100.0, min_deadline_s=1.0))
    fill(queue, 4, 4)
    (grant,) = queue.lease("w1", 4, now=0.0)
    assert queue.expire(99.0) == []
    queue.complete(grant.lease, now=0.5)
    (grant,) = queue.lease("w1", 4, now=1.0)
    assert queue.expire(5.9) == []
    assert queue.expire(6.1) == [Overdue("w1", 1, pytest.approx(5.1), 5.0, Returned(1, []))]
    assert queue.expire(6.2) == []


def test_clear_forgets_leases_and_counts_their_answers():
    queue = joined("w1")
    fill(queue, 8, 8)
    (grant,) = queue.lease("w1", 8, 0.0)
    queue.clear()
    assert queue.open_batches == 0 and queue.nbytes == 0
    assert queue.find(grant.lease, "w1", 0.0) is None
    assert finish(queue, "w1") == 0


def test_teacher_names_must_differ():
    for names in ([], ["a", "a"]):
        with pytest.raises(ConfigError):
            LabelQueue(names)


def test_a_workers_latency_is_a_moving_average():
    queue = joined("w1", flow=Flow(first_deadline_s=100.0, min_deadline_s=1.0))
    fill(queue, 4, 4, 4)
    for since, took_s in ((0.0, 0.5), (10.0, 1.5)):
        (grant,) = queue.lease("w1", 4, since)
        queue.complete(grant.lease, since + took_s)
    queue.lease("w1", 4, 20.0)
    assert queue.expire(26.9) == [], "0.8 times 0.5 s and 0.2 times 1.5 s, ten times"
    assert [overdue.allowed_s for overdue in queue.expire(27.1)] == [pytest.approx(7.0)]


def test_as_many_are_woken_for_second_leases_as_there_are_old_tasks():
    queue = joined("a", "b", "c", "d", "e")
    fill(queue, 8)
    for worker in "ab":
        assert queue.lease(worker, 4, 0.0)
    for worker in "cde":
        assert not queue.lease(worker, 4, 0.0)
    assert queue.rouse_to_hedge("teacher", 5.0, older_than_s=1.0) == ["c", "d"]
    assert queue.hedge("c", 4, 5.0, 1.0).start == 0 and queue.hedge("d", 4, 5.0, 1.0).start == 4


def test_labels_of_a_worker_that_is_done_without_are_made_anew_and_what_the_loop_had_is_counted():
    queue = joined("wrong", "right")
    fill(queue, 4, 4, 4)
    assert finish(queue, "wrong", 4) == 1
    queue.deliver()
    assert finish(queue, "wrong", 4) == 1 and queue.ready()
    (held,) = queue.lease("wrong", 2, 0.0)
    freed = []
    taken = queue.take_back("wrong", 0.0, lambda *place: freed.append(place) or 0)
    assert (taken.samples, taken.consumed, taken.returned.requeued) == (4, 4, 1)
    assert freed == [(1, "teacher")] and not queue.ready() and queue.retracted == 4
    queue.validate(0.0)
    assert queue.find(held.lease, "wrong", 0.0) is None, "what it still sends is a duplicate"
    again = queue.lease("right", 100, 0.0)
    assert [(grant.batch, grant.start, grant.stop) for grant in again] == [(1, 0, 4), (2, 0, 2), (2, 2, 4)]
    for grant in again:
        queue.complete(grant.lease, 0.0)
    assert (queue.deliver(), queue.deliver()) == (1, 2)
    assert queue.take_back("wrong", 0.0, lambda *_: 0).samples == 0


def test_what_is_given_up_is_not_asked_for_again():
    queue = joined("wrong", "right")
    fill(queue, 4, 4)
    finish(queue, "wrong", 8)
    queue.abandon(0)
    taken = queue.take_back("wrong", 0.0, lambda *_: 0)
    assert taken.samples == 4
    assert queue.deliver() == 0
    queue.validate(0.0)
