"""What the student's two threads share: what ends a wait, where labels go, and how long the loop lagged."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from edldist.clock import FakeClock
from edldist.errors import EdlDistError, LoaderClosedError, PoisonTaskError
from edldist.labels.grammar import CodecSpec, parse_spec
from edldist.student.batch.batch import OpenBatch
from edldist.student.queue.flow import Flow
from edldist.student.queue.outcomes import Grant
from edldist.student.service.delivery import Delivery
from edldist.wire.messages import LeaseRows, Result, TensorSpec

NEVER_S = 1e6


class Desk:
    """A delivery, the samples that it is offered and the labels that it gets."""

    def __init__(
        self,
        *workers: str,
        teachers: tuple[str, ...] = ("t",),
        skip_poison=False,
        hand_on=False,
        **flow,
    ) -> None:
        self.clock = FakeClock(100.0)
        self.delivery = Delivery(teachers, Flow(**flow), self.clock, 1, 1 << 20, skip_poison, hand_on=hand_on)
        for worker in workers:
            self.delivery.join(worker, teachers[0], forgiven=False)

    def offer(self, *sizes: int, allocate=None) -> list[bool]:
        batches = [OpenBatch(None, {"x": torch.zeros(size)}, size, allocate=allocate) for size in sizes]
        return [self.delivery.offer(batch) for batch in batches]

    def lease(self, worker: str, room: int = 4) -> list[Grant]:
        return self.delivery.lease(worker, room, NEVER_S).grants

    def label(
        self,
        worker: str,
        *grants: Grant,
        rows: int | None = None,
        version: str = "",
        codec: CodecSpec | None = None,
    ) -> list[tuple[int, str]]:
        """Every sample's label is its place in the batch; ``rows`` if their number is a lie."""
        answers = [LeaseRows(lease=grant.lease, count=grant.stop - grant.start) for grant in grants]
        values = [value for grant in grants for value in range(grant.start, grant.stop)][:rows]
        specs = [TensorSpec(name="logits", dtype="float32", shape=[len(values)])]
        frame = memoryview(bytearray(torch.tensor(values, dtype=torch.float32).numpy().tobytes()))
        result = Result(rows=answers, version=version, compute_s=0.0, tensors=specs, codec=codec)
        refused = self.delivery.place(worker, result, [frame], own_memory=False)
        self.delivery.validate()
        return refused

    def labels(self, teacher: str = "t") -> list[float]:
        return self.delivery.deliver().labels()[teacher]["logits"].tolist()

    @property
    def backpressure_s(self) -> object:
        return self.delivery.stats()["backpressure_s"]


class Loop(threading.Thread):
    """The training loop, which waits for its next batch."""

    def __init__(self, desk: Desk, reading: bool) -> None:
        super().__init__(daemon=True)
        self._delivery = desk.delivery
        self._reading = reading
        self.outcome: bool | EdlDistError | None = None
        self.start()
        deadline = time.monotonic() + 90
        while not self._delivery._changed._waiters:  # type: ignore[attr-defined]
            assert time.monotonic() < deadline and self.is_alive()

    def run(self) -> None:
        try:
            self.outcome = self._delivery.wait(NEVER_S, self._reading)
        except EdlDistError as exc:
            self.outcome = exc

    def ends(self) -> bool | EdlDistError | None:
        self.join(60)
        assert not self.is_alive(), "nobody told it"
        return self.outcome


def no_memory(shape, dtype):
    raise RuntimeError("no memory on purpose")


def test_says_what_each_teacher_has_to_do_with_the_open_batches():
    desk = Desk("w", teachers=("t", "u"))
    assert desk.delivery.backlog() == (0, 0, {"t": 0, "u": 0}, {"t": Counter(), "u": Counter()})
    desk.offer(4, 6)
    desk.label("w", *desk.lease("w", 4))
    desk.lease("w", 2)
    assert desk.delivery.backlog() == (
        2,
        10,
        {"t": 10, "u": 10},
        {"t": Counter({1: 6}), "u": Counter({0: 4, 1: 6})},
    )


# --- what ends a wait ---------------------------------------------------------------------------------


def test_labels_that_complete_the_head_batch_end_the_wait():
    desk = Desk("a")
    desk.offer(2, 2)
    first, second = desk.lease("a")
    loop = Loop(desk, reading=False)
    desk.label("a", second)
    assert loop.is_alive(), "that is not its next one"
    desk.label("a", first)
    assert loop.ends() is True


@pytest.mark.parametrize("skip", [False, True])
def test_poison_ends_the_wait(skip: bool):
    desk = Desk("a", max_attempts=1, skip_poison=skip)
    desk.offer(2)
    (grant,) = desk.lease("a")
    loop = Loop(desk, reading=False)
    outcome = desk.delivery.fail("a", grant.lease, "boom")
    assert outcome is not None and len(outcome.poison) == 1
    assert loop.ends() is True if skip else isinstance(loop.ends(), PoisonTaskError)


def test_a_lack_of_memory_for_labels_ends_the_wait_and_says_whose_error_it_was():
    desk = Desk("a")
    desk.offer(2, allocate=no_memory)
    (grant,) = desk.lease("a")
    loop = Loop(desk, reading=False)
    desk.label("a", grant)
    error = loop.ends()
    assert isinstance(error, EdlDistError) and error.__cause__ is not None
    assert "no memory on purpose" in str(error.__cause__)


def test_the_end_of_the_service_ends_this_wait_and_every_later_one():
    desk = Desk()
    loop = Loop(desk, reading=False)
    error = LoaderClosedError("closed")
    desk.delivery.stop(error)
    assert loop.ends() is error
    with pytest.raises(LoaderClosedError):
        desk.delivery.wait(0.0, reading=False)


def test_nothing_is_delivered_while_the_head_lacks_labels():
    desk = Desk("a")
    desk.offer(2, 2)
    first, second = desk.lease("a")
    assert desk.delivery.deliver() is None
    desk.label("a", second)
    assert desk.delivery.deliver() is None, "the one behind it has to wait for it"
    desk.label("a", first)
    assert [desk.labels(), desk.labels()] == [[0, 1], [0, 1]]
    assert desk.delivery.deliver() is None


def test_a_lease_that_makes_room_ends_the_wait_of_a_loop_that_reads():
    desk = Desk("a", low_watermark=1, high_watermark=2)
    desk.offer(2)
    desk.label("a", *desk.lease("a"))  # from now on leased batches make room
    desk.delivery.deliver()
    desk.offer(2, 2)
    assert not desk.delivery.wants_batch()
    loop = Loop(desk, reading=True)
    desk.lease("a", 2)
    assert loop.ends() is False and desk.delivery.wants_batch()


def test_a_loop_whose_data_has_ended_is_not_sent_to_read():
    desk = Desk("a")
    assert desk.delivery.wants_batch() and desk.delivery.wait(NEVER_S, reading=True) is False
    began = time.monotonic()
    assert desk.delivery.wait(0.02, reading=False) is False and time.monotonic() - began >= 0.02


# --- where labels go ----------------------------------------------------------------------------------


def test_labels_of_several_tasks_in_one_result_each_find_their_place():
    desk = Desk("a", "b")
    desk.offer(3, 4)
    (elsewhere,) = desk.lease("b", 1)
    first, second = desk.lease("a", 6)
    assert (first.start, first.stop, second.stop) == (1, 3, 4)
    assert desk.label("a", first, second) == []
    assert desk.label("b", elsewhere) == []
    assert desk.labels() == [0, 1, 2] and desk.labels() == [0, 1, 2, 3]


def test_labels_in_another_codec_than_was_asked_for_are_refused_and_their_batch_waits_on():
    desk = Desk("a")
    smaller = OpenBatch(None, {"x": torch.zeros(2)}, 2)
    smaller.codec = parse_spec("topk:4")
    desk.delivery.offer(smaller)
    desk.offer(2)
    first, second = desk.lease("a")
    refused = desk.label("a", first, second)
    assert refused == [(first.lease, "labels came in codec that of its group, and were asked for in topk:4")]
    assert desk.delivery.buffered == 0
    assert desk.label("a", first, codec=parse_spec("topk:2"))[0][0] == first.lease
    assert desk.label("a", first, codec=parse_spec("topk:4")) == []
    assert desk.delivery.buffered == 2


def test_what_others_labelled_first_is_left_out_and_the_rest_of_a_result_counts():
    desk = Desk("a", "b")
    desk.offer(2, 2)
    first, second = desk.lease("a")
    desk.delivery.give_back("a", [first.lease])
    (again,) = desk.lease("b", 2)
    assert desk.label("a", first, second) == []
    assert desk.delivery.stats()["duplicates"] == 1 and desk.delivery.buffered == 0
    desk.label("b", again)
    assert desk.delivery.buffered == 2


def test_a_result_of_another_size_is_refused_for_each_of_its_open_leases():
    desk = Desk("a", "b")
    desk.offer(2, 2, 2)
    first, second, third = desk.lease("a", 6)
    desk.delivery.give_back("a", [second.lease])
    refused = desk.label("a", first, second, third, rows=5)
    assert [lease for lease, _ in refused] == [first.lease, third.lease]
    assert all("logits" in why for _, why in refused)


@pytest.mark.parametrize("fixed", [False, True])
def test_large_labels_are_kept_as_they_came_unless_their_place_must_not_matter(fixed):
    """A frame lies at any address, and sums and products of a loop differ in the last bits with it."""
    desk = Desk("a", fixed=fixed)
    desk.offer(2)
    (grant,) = desk.lease("a")
    frame = memoryview(bytearray(1 << 18))
    began = np.frombuffer(frame, np.uint8).ctypes.data
    answer = [LeaseRows(lease=grant.lease, count=2)]
    specs = [TensorSpec(name="logits", dtype="float32", shape=[2, 1 << 15])]
    result = Result(rows=answer, version="", compute_s=0.0, tensors=specs)
    assert desk.delivery.place("a", result, [frame], own_memory=True) == []
    address = desk.delivery.deliver().labels()["t"]["logits"].data_ptr()
    assert (address == began) is not fixed
    assert not fixed or address % 64 == 0


# --- workers come, go and sleep ---------------------------------------------------------------------


def test_offering_tells_whether_somebody_sleeps():
    desk = Desk("a", teachers=("t", "u"))
    desk.delivery.join("b", "u", forgiven=False)
    assert desk.offer(2) == [False]
    assert desk.lease("b") and not desk.lease("b") and desk.delivery.asleep("b")
    assert desk.offer(2) == [True] and not desk.delivery.asleep("a")
    assert desk.delivery.rouse(NEVER_S, thorough=False) == ["b"] and desk.offer(2) == [False]


@pytest.mark.parametrize("forgiven", [False, True])
def test_a_process_that_was_taken_for_lost_and_greets_again_acquits_what_it_held(forgiven: bool):
    desk = Desk(verdict_s=1.0, max_attempts=1)
    desk.offer(2)
    for worker in "abc":
        desk.delivery.join(worker, "t", forgiven=False)
        assert desk.lease(worker)
        assert desk.delivery.lose(worker, "killed").poison == []
    for worker in "abc":
        desk.delivery.join(worker, "t", forgiven=forgiven)
    desk.clock.advance(2.0)
    verdicts = desk.delivery.verdicts()
    assert (len(verdicts.poison), verdicts.requeued) == (0 if forgiven else 1, 0)
    desk.delivery.validate()


def test_who_leaves_or_gives_back_is_told_how_many_tasks_others_get():
    desk = Desk("a")
    desk.offer(2, 2, 2)
    leases = [grant.lease for grant in desk.lease("a", 6)]
    assert desk.delivery.give_back("a", leases[:1]).requeued == 1
    assert desk.delivery.leave("a").requeued == 2


def test_who_is_quarantined_sleeps_and_is_woken_after_its_parole_alone():
    desk = Desk("sick")
    desk.delivery.quarantine("sick", 2)
    assert desk.delivery.asleep("sick") and desk.offer(2) == [True]
    assert desk.delivery.rouse(NEVER_S, thorough=True) == []
    desk.delivery.parole("sick")
    assert desk.delivery.rouse(NEVER_S, thorough=True) == ["sick"]


def test_only_a_thorough_look_wakes_for_second_leases_and_sees_every_sleeper():
    crowd = [f"sleeper{number}" for number in range(40)]
    desk = Desk("slow", "sick", *crowd, "well")
    desk.offer(2)
    assert desk.lease("slow")
    for worker in crowd:
        assert not desk.lease(worker)
        desk.delivery.quarantine(worker, 1)
    assert not desk.lease("well")
    desk.clock.advance(5.0)
    assert desk.delivery.rouse(1.0, thorough=False) == []
    assert desk.delivery.rouse(1.0, thorough=True) == ["well"]
    desk.offer(2)
    assert not desk.lease("well", 0)
    assert desk.delivery.rouse(1.0, thorough=False) == [], "32 are passed over in one turn"
    assert desk.delivery.rouse(1.0, thorough=False) == ["well"]


# --- backpressure -----------------------------------------------------------------------------------


def full(desk: Desk, worker: str = "a") -> Callable[[], None]:
    """One batch, labelled, is all that may be read; what empties it again."""
    desk.offer(2)
    desk.label(worker, *desk.lease(worker))
    return lambda: desk.delivery.deliver() and None


def test_the_time_in_which_all_is_labelled_and_nothing_may_be_read_is_backpressure():
    desk = Desk("a", low_watermark=0, high_watermark=1)
    desk.clock.advance(1.0)
    assert desk.backpressure_s == 0.0, "nothing is open"
    for total in (2.0, 4.0):
        empty = full(desk)
        desk.clock.advance(2.0)
        assert desk.backpressure_s == total, "so far"
        empty()
        desk.clock.advance(1.0)
        assert desk.backpressure_s == total, "the loop has taken it"


def test_backpressure_goes_on_when_the_loop_takes_a_batch_and_still_nothing_may_be_read():
    desk = Desk("a", low_watermark=0, high_watermark=2)
    desk.offer(2, 2)
    desk.label("a", *desk.lease("a"))
    desk.clock.advance(1.0)
    desk.delivery.deliver()
    assert not desk.delivery.wants_batch()
    desk.clock.advance(1.0)
    assert desk.backpressure_s == 2.0


def test_backpressure_ends_when_the_loop_is_left():
    desk = Desk("a", low_watermark=0, high_watermark=1)
    full(desk)
    desk.clock.advance(2.0)
    desk.delivery.clear()
    desk.clock.advance(2.0)
    assert desk.backpressure_s == 2.0


def test_it_is_no_backpressure_while_a_batch_lacks_labels_or_more_may_be_read():
    desk = Desk("a", low_watermark=1, high_watermark=2)
    desk.offer(2)
    desk.label("a", *desk.lease("a"))
    desk.clock.advance(1.0)
    assert desk.backpressure_s == 0.0 and desk.delivery.wants_batch()
    desk.offer(2)
    desk.clock.advance(1.0)
    assert desk.backpressure_s == 0.0 and not desk.delivery.wants_batch()
    desk.label("a", *desk.lease("a"))
    desk.clock.advance(1.0)
    assert desk.backpressure_s == 1.0
    desk.offer(2)
    desk.clock.advance(1.0)
    assert desk.backpressure_s == 1.0, "one that was read all the same lacks labels"


def test_what_is_dropped_holds_nothing_of_the_loops_though_the_other_thread_still_has_it():
    """The I/O thread may be about to answer a pull with it, and is not to finalise what a script made."""
    desk = Desk("w")
    mine = [OpenBatch(object(), {"x": torch.zeros(2)}, 2) for _ in range(3)]
    for batch in mine:
        desk.delivery.offer(batch)
    leased = desk.delivery.lease("w", 4, NEVER_S).batches
    desk.delivery.clear()
    assert leased[0] is mine[0] and all(batch.batch is None for batch in mine)
