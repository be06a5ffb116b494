"""Batches under way: withdrawn, asked for again, without a teacher, of a worker that was put aside."""

from __future__ import annotations

from typing import Any

import torch

from edldist.errors import PoisonTaskError
from edldist.student.batch.batch import OpenBatch
from edldist.student.queue.flow import Flow
from edldist.student.queue.outcomes import Returned
from edldist.student.service.delivery import Delivery
from tests.unit.test_delivery import NEVER_S, Desk, Loop


def offer(desk: Desk, mark: object, samples: int = 2) -> OpenBatch:
    batch = OpenBatch([mark], {"x": torch.zeros(samples)}, samples, mark=mark)
    desk.delivery.offer(batch)
    return batch


def rolling(**flow: Any) -> Desk:
    """A delivery of teachers t, whose versions follow each other, and u, with a worker of each."""
    desk = Desk()
    desk.delivery = Delivery(("t", "u"), Flow(**flow), desk.clock, 1, 1 << 20, False, rolling=("t",))
    desk.delivery.join("old", "t", forgiven=False)
    desk.delivery.join("u1", "u", forgiven=False)
    return desk


# --- one batch among others ---------------------------------------------------------------------------


def test_whoever_waits_for_a_batch_gets_no_other_one() -> None:
    desk = Desk("a")
    first, second = object(), object()
    batches = [offer(desk, mark) for mark in (first, second)]
    desk.label("a", *desk.lease("a"))
    assert desk.delivery.deliver(second) is None
    assert desk.delivery.deliver(first) is batches[0]
    assert desk.delivery.deliver() is batches[1]


def test_a_batch_that_is_withdrawn_is_delivered_as_it_is_and_others_are_labelled() -> None:
    desk = Desk("a", low_watermark=0, high_watermark=2)
    first, second = object(), object()
    batches = [offer(desk, mark) for mark in (first, second)]
    grants = desk.lease("a")
    desk.delivery.withdraw(second)
    assert desk.delivery.buffered == 0 and desk.delivery.deliver() is None
    desk.label("a", *grants)
    assert desk.delivery.stats()["duplicates"] == 1, "what comes for the other one is late"
    assert desk.delivery.deliver() is batches[0] and batches[0].labelled == {"t"}
    assert desk.delivery.deliver() is batches[1] and not batches[1].labelled


def test_what_is_withdrawn_may_leave_nothing_to_do() -> None:
    desk = Desk("a", low_watermark=0, high_watermark=1)
    mark = object()
    offer(desk, mark)
    desk.delivery.withdraw(mark)
    desk.clock.advance(2.0)
    desk.delivery.deliver()
    assert desk.backpressure_s == 2.0


def test_a_loop_that_is_left_lets_go_of_what_it_was_to_get() -> None:
    desk = Desk("a")
    batch = offer(desk, None)
    desk.delivery.clear()
    assert batch.batch is None


# --- older versions -------------------------------------------------------------------------------------


def test_labels_of_older_versions_are_made_again_of_every_batch_that_has_some() -> None:
    desk = rolling(low_watermark=0, high_watermark=3)
    passed, given_up, usual = (offer(desk, number) for number in range(3))
    old = [desk.lease("old", 2) for _ in range(3)]
    desk.label("old", *old[0], version="1")
    desk.label("old", *old[2], version="1")
    passed.passed_over = frozenset({"t"})
    desk.delivery.fail("u1", desk.lease("u1", 2)[0].lease, "no", final=True)
    assert passed.error is not None and given_up.error is None
    desk.delivery.retire("t", 2)
    desk.delivery.validate()
    assert passed.labelled == set(), "it goes on without, whatever there was"
    assert usual.labelled == set() and usual.label_bytes == 0
    assert desk.delivery.stats()["stale"] == 2
    desk.label("u1", *desk.lease("u1", 8), version="7")
    desk.label("old", *old[1], version="2")
    assert desk.delivery.backlog().lacking["t"] == {2: 2}


def test_what_is_asked_for_again_ends_backpressure() -> None:
    desk = Desk()
    flow = Flow(low_watermark=0, high_watermark=1)
    desk.delivery = Delivery(("t",), flow, desk.clock, 1, 1 << 20, False, rolling=("t",))
    desk.delivery.join("old", "t", forgiven=False)
    offer(desk, None)
    desk.label("old", *desk.lease("old"), version="1")
    desk.clock.advance(1.0)
    desk.delivery.retire("t", 2)
    desk.clock.advance(1.0)
    assert desk.backpressure_s == 1.0


def test_a_batch_that_was_given_up_keeps_the_labels_that_it_has() -> None:
    desk = rolling()
    batch = offer(desk, None)
    desk.label("old", *desk.lease("old"), version="1")
    desk.delivery.fail("u1", desk.lease("u1")[0].lease, "no", final=True)
    desk.delivery.retire("t", 2)
    assert batch.labelled == {"t"} and desk.delivery.stats()["stale"] == 0


def test_versions_are_kept_of_teachers_whose_versions_follow_each_other_alone() -> None:
    desk = rolling()
    batch = offer(desk, None)
    desk.label("old", *desk.lease("old"), version="1")
    desk.label("u1", *desk.lease("u1"), version="1")
    assert batch.has_older("t", 2) and not batch.has_older("t", 1)
    assert not batch.has_older("u", 2)


# --- teachers that are missing ------------------------------------------------------------------------


def test_batches_go_on_one_by_one_without_a_teacher_that_is_missing_until_it_is_back() -> None:
    desk = Desk("t1", teachers=("t", "u"), low_watermark=0, high_watermark=3)
    batches = [offer(desk, number) for number in range(3)]
    desk.label("t1", *desk.lease("t1", 6))
    loop = Loop(desk, reading=False)
    desk.delivery.miss(frozenset({"u"}))
    assert loop.ends() is True
    assert desk.delivery.buffered == 1, "only the head, as the teacher may come back"
    assert desk.delivery.deliver() is batches[0] and batches[0].passed_over == {"u"}
    assert desk.delivery.buffered == 1, "the next one is the head now"
    desk.delivery.join("u1", "u", forgiven=False)
    assert desk.delivery.deliver() is batches[1]
    assert desk.delivery.buffered == 0 and desk.delivery.deliver() is None
    desk.delivery.validate()


def test_a_head_without_a_missing_teacher_may_leave_nothing_to_do() -> None:
    desk = Desk("t1", teachers=("t", "u"), low_watermark=0, high_watermark=1)
    offer(desk, None)
    desk.label("t1", *desk.lease("t1"))
    desk.clock.advance(1.0)
    desk.delivery.miss(frozenset({"u"}))
    desk.clock.advance(2.0)
    assert desk.backpressure_s == 2.0


def test_labels_that_come_while_a_teacher_is_missing_let_the_head_go_on() -> None:
    desk = Desk("t1", teachers=("t", "u"))
    batch = offer(desk, None)
    desk.delivery.miss(frozenset({"u"}))
    assert desk.delivery.deliver() is None, "it has no labels at all"
    desk.label("t1", *desk.lease("t1"))
    assert desk.delivery.deliver() is batch


def test_each_group_that_came_is_told_once() -> None:
    desk = Desk("t1", teachers=("t", "u"))
    assert desk.delivery.came() == {"t"} and desk.delivery.came() == set()
    desk.delivery.join("u1", "u", forgiven=False)
    assert desk.delivery.came() == {"u"}


# --- a worker that is put aside -----------------------------------------------------------------------


def test_who_is_put_aside_is_not_woken_and_others_label_what_the_loop_has_not_had() -> None:
    desk = Desk("odd", "even", low_watermark=0, high_watermark=3)
    for number in range(3):
        offer(desk, number)
    desk.label("odd", *desk.lease("odd", 4))
    desk.delivery.deliver()
    desk.lease("odd", 2)
    assert desk.delivery.consumed("odd") == 2 and desk.delivery.consumed("even") == 0
    taken = desk.delivery.put_aside("odd", 2)
    desk.delivery.validate()
    assert (taken.returned.requeued, taken.samples, taken.consumed) == (1, 2, 2)
    assert desk.delivery.stats()["retracted"] == 2 and desk.delivery.leases_of("odd") == frozenset()
    assert desk.delivery.asleep("odd") and desk.delivery.rouse(NEVER_S, thorough=True) == []
    desk.label("even", *desk.lease("even", 4))
    assert desk.delivery.buffered == 2


def test_what_a_worker_that_is_put_aside_had_labelled_ends_backpressure() -> None:
    desk = Desk("odd", low_watermark=0, high_watermark=1)
    offer(desk, None)
    desk.label("odd", *desk.lease("odd"))
    desk.clock.advance(1.0)
    desk.delivery.put_aside("odd", 2)
    desk.clock.advance(1.0)
    assert desk.backpressure_s == 1.0


def test_what_is_given_up_with_a_worker_that_is_put_aside_is_told_to_the_loop() -> None:
    """The task has failed for good on one worker, while another one tried it, too."""
    desk = Desk("a", "odd", max_attempts=1)
    offer(desk, None)
    (grant,) = desk.lease("a")
    desk.clock.advance(1.0)
    assert desk.delivery.lease("odd", 4, hedge_after_s=0.5).grants
    failed = desk.delivery.fail("a", grant.lease, "no")
    assert failed is not None and not failed.poison, "the other one may yet label it"
    loop = Loop(desk, reading=False)
    assert len(desk.delivery.put_aside("odd", 2).returned.poison) == 1
    assert isinstance(loop.ends(), PoisonTaskError)


# --- a task that no attempt can label -----------------------------------------------------------------


def test_a_failure_is_taken_for_certain_only_where_it_is_said_to_be() -> None:
    for certain in (False, True):
        desk = Desk("a", max_attempts=3)
        offer(desk, None)
        (grant,) = desk.lease("a")
        failed = (
            desk.delivery.fail("a", grant.lease, "no", certain=True)
            if certain
            else desk.delivery.fail("a", grant.lease, "no")
        )
        assert failed is not None and len(failed.poison) == certain


def test_what_is_refused_for_good_goes_back_to_nobody() -> None:
    desk = Desk("a", "b")
    batch = offer(desk, None)
    (grant,) = desk.lease("a")
    assert desk.delivery.fail("a", grant.lease, "no", final=True) == Returned(0, [])
    assert batch.error is not None and desk.lease("b") == []
