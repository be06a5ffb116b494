"""The student's service, turn by turn: no thread, no socket, and a clock that goes when a test says so."""

from __future__ import annotations

import pytest
import torch

from edldist.errors import ContractError, InputError, LabelMemoryError, PoisonTaskError
from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.teacher_inputs import TeacherInputs
from edldist.student.queue.flow import Flow
from edldist.wire.messages import (
    Failure,
    Labels,
    Lease,
    LeaseRows,
    Result,
    TensorSpec,
    Vouch,
)
from tests.unit.party import pass_time


def test_a_late_answer_of_a_worker_that_lives_labels_its_task_and_accuses_nobody(party):
    """A deadline of half a second, a task that takes 1.6 s, three workers that live."""
    job = party(Flow(first_deadline_s=0.5, min_deadline_s=0.5), hedge_after_s=1e9)
    crew = [job.worker(name) for name in "abc"]
    job.offer(4)
    began, leases = {}, {}
    for tick in range(40):
        for worker in crew:
            worker.hear()
            if worker not in leases and (got := worker.pull()):
                leases[worker], began[worker] = got[0], tick
            if worker in leases and tick == began[worker] + 16:
                worker.label(leases[worker])
        job.turn(0.1)
    assert job.delivery.wait(0.0, reading=False), "labelled"
    stats = job.service.stats()
    assert (stats["done"], stats["failed"], stats["duplicates"]) == (1, 0, 2)
    assert began[crew[0]] == 0 and all(began[worker] > 4 for worker in crew[1:])


def test_a_task_that_hangs_three_workers_raises_with_their_names_and_the_fourth_goes_on(party):
    job = party(Flow(first_deadline_s=0.5, min_deadline_s=0.5, hang_s=5.0), hedge_after_s=1e9)
    crew = [job.worker(name) for name in "abcd"]
    job.offer(4, 4)
    for worker in crew[:3]:
        assert worker.pull()
        pass_time(job, 0.7, *crew)
    (innocent,) = crew[3].pull()
    crew[3].label(innocent)
    assert not job.delivery.wait(0.0, reading=False)
    pass_time(job, 5.0, *crew)
    with pytest.raises(PoisonTaskError, match="worker c has held only this task for .* answers pings"):
        job.delivery.wait(0.0, reading=False)
    assert job.service.teachers() == 4 and job.service.stats()["done"] == 1


def test_a_final_failure_is_no_attempt_and_ends_the_batch_when_it_is_due(party):
    job = party()
    bad, other = job.worker("bad"), job.worker("other")
    job.offer(4, 4)
    (lease,) = bad.pull()
    bad.say(Failure(leases=[lease], error="returned a str", final=True))
    assert len(other.pull()) == 1, "of the second batch: nobody gets the first one again"
    assert other.pull() == []
    with pytest.raises(ContractError, match=r"samples 0..3 of batch 0\)[\s\S]*returned a str"):
        job.delivery.wait(0.0, reading=False)
    assert (job.service.stats()["failed"], job.service.stats()["requeued"]) == (1, 0)


def test_a_final_failure_of_a_group_that_has_labelled_is_one_attempt(party):
    """A worker that was installed otherwise ends no job that its group can do."""
    job = party()
    well, bad = job.worker("well"), job.worker("bad")
    job.offer(4, 4)
    (first,) = well.pull()
    (second,) = bad.pull()
    well.label(first)
    bad.say(Failure(leases=[second], error="returned a str", final=True))
    assert job.delivery.wait(0.0, reading=False) and job.delivery.deliver()
    (again,) = well.pull()
    well.label(again)
    assert job.delivery.wait(0.0, reading=False)
    assert (job.service.stats()["failed"], job.service.stats()["requeued"]) == (1, 1)


def test_a_silent_worker_that_is_vouched_for_is_not_lost(party):
    job = party(heartbeat_ttl_s=1.0)
    busy, other = job.worker("busy"), job.worker("other")
    job.offer(4)
    (lease,) = busy.pull()
    beside = job.poller.connect(job.service.address, "busy~voucher")
    for _ in range(30):
        beside.send(Vouch(id="busy", process="busy"))
        pass_time(job, 0.1, other)
    assert job.service.teachers() == 2
    assert beside.receive() is None, "nobody talks to it"
    beside.send(Vouch(id="busy", process="another"))
    pass_time(job, 1.2, other)
    assert job.service.teachers() == 1 and job.service.stats()["requeued"] == 1


def test_a_worker_that_is_late_gets_no_more_work_until_it_answers(party, caplog):
    job = party(Flow(first_deadline_s=0.5, min_deadline_s=0.5), hedge_after_s=1e9)
    slow, other = job.worker("slow"), job.worker("other")
    job.offer(4, 4, 4)
    (late,) = slow.pull()
    pass_time(job, 0.7, slow, other)
    assert "worker slow has held 1 tasks for 0." in caplog.text
    assert slow.pull() == [] and slow.answer.quarantine == ""
    assert len(other.pull(4)) == 1
    slow.label(late)
    assert len(slow.pull()) == 1


@pytest.mark.parametrize("on_poison", ["raise", "skip"])
def test_a_rank_without_memory_for_labels_blames_no_worker_and_raises_when_the_batch_is_due(party, on_poison):
    """The first batch is delivered, then the loop gets the error, whatever is done with poison."""
    asked = []

    def allocate(shape, dtype):
        asked.append(list(shape))
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] not enough memory: you tried to allocate\nmore")

    job = party(skip_poison=on_poison == "skip")
    crew = [job.worker(name) for name in "abcd"]
    job.offer(4)
    job.offer(8, allocate=allocate)
    job.offer(4)
    leases = {worker: worker.pull()[0] for worker in crew}
    second, third = crew[1], crew[2]  # both hold four of the eight samples
    second.label(leases[second])
    third.label(leases[third])
    assert asked == [[8, 1]], "nobody gets the batch any more"
    crew[3].label(leases[crew[3]])
    assert job.delivery.buffered == 0 and not second.pull()
    crew[0].label(leases[crew[0]])
    assert job.delivery.wait(0.0, reading=False)
    job.delivery.deliver()
    for _ in range(2):
        with pytest.raises(LabelMemoryError) as caught:
            job.delivery.wait(0.0, reading=False)
    for part in ("batch 1", "'teacher'", "32 bytes", "'logits'", "not enough memory", "lower high_watermark"):
        assert part in str(caught.value)
    stats = job.service.stats()
    assert (stats["failed"], stats["requeued"], stats["done"]) == (0, 0, 2)
    job.delivery.clear()
    job.offer(4)
    (again,) = second.pull()
    second.label(again)
    assert job.delivery.wait(0.0, reading=False), "a loop that goes on meets no old error"


def test_a_loop_that_is_left_while_its_labels_find_no_memory_meets_no_error(party):
    job = party()

    def allocate(shape, dtype):
        job.delivery.clear()
        raise RuntimeError("no memory")

    worker = job.worker("a")
    job.offer(4, allocate=allocate)
    (lease,) = worker.pull()
    worker.label(lease)
    job.offer(4)
    (lease,) = worker.pull()
    worker.label(lease)
    assert job.delivery.wait(0.0, reading=False)


def test_one_success_clears_a_workers_failures(party):
    job = party()
    worker, other = job.worker("worker"), job.worker("other")
    for number in range(7):
        job.offer(4)
        (lease,) = worker.pull()
        if number == 3:
            worker.label(lease)
            continue
        worker.fail(lease)
        (lease,) = other.pull()
        other.label(lease)
    job.offer(4)
    assert len(worker.pull()) == 1, "three failures, a success, three failures"


def test_max_bytes_bounds_all_that_open_batches_hold_while_workers_hold_their_tasks(party):
    """The teacher sees 32 bytes of each batch; the loop is to get a mebibyte, and as much of labels."""
    job = party(Flow(max_bytes=9 << 20, high_watermark=4))
    crew = [job.worker(f"w{number}") for number in range(32)]

    def read() -> None:
        while job.delivery.wants_batch():
            image, index = torch.zeros(4, 1 << 16), torch.arange(4)
            job.service.offer(OpenBatch({"image": image, "index": index}, {"index": index}, 4))

    read()
    (first,) = crew[0].pull()
    crew[0].label(first, width=1 << 16)
    held = {}
    for worker in crew[1:]:
        read()
        held |= {lease: worker for lease in worker.pull()}
    assert job.service.stats()["open"] == 4, "32 workers could hold 32"
    for lease, worker in held.items():
        worker.label(lease, width=1 << 16)
    assert 8 << 20 <= job.service.stats()["queue_bytes"] <= 9 << 20


def test_a_task_is_no_larger_than_a_frame_however_much_a_worker_asks_for(party):
    job = party(max_frame_bytes=1000)
    worker = job.worker("a")
    job.service.offer(OpenBatch(None, {"x": torch.zeros(10, 64), "y": torch.zeros(10)}, 10))
    job.service.offer(OpenBatch(None, {"x": torch.zeros(10, 16)}, 10))
    worker.pull(100)
    tasks = [lease.samples for group in worker.answer.groups for lease in group.leases]
    assert tasks == [3, 3, 3, 1, 10], "256 bytes a sample, then 64: each batch has its own bound"
    with pytest.raises(InputError, match="a task of 1 samples of 1024 bytes .* limit of a frame, 1000 bytes"):
        job.service.offer(OpenBatch(None, {"x": torch.zeros(10, 256)}, 10))
    assert job.service.stats()["open"] == 2


def test_a_lease_says_what_it_costs_and_is_answered_by_as_many_rows(party):
    """Two sequences of three and of two tokens."""
    job = party()
    worker = job.worker("a")
    packed = TeacherInputs({"token": torch.arange(5)}, 2, lengths=[3, 2])
    job.service.offer(OpenBatch(None, {}, 2, apart={"teacher": packed}))
    (lease,) = worker.pull(5)
    (group,) = worker.answer.groups
    assert group.leases == [Lease(id=lease, samples=2, cost=5, own_pass=False)]
    assert group.tensors == [TensorSpec(name="token", dtype="int64", shape=[5])]
    worker.label(lease, samples=5)
    assert job.delivery.deliver().labels()["teacher"]["logits"].flatten().tolist() == [0, 1, 2, 3, 4]


def test_labels_of_too_few_rows_fail_their_task(party):
    job = party()
    worker = job.worker("a")
    job.offer(4)
    (lease,) = worker.pull()
    worker.label(lease, samples=3)
    assert job.service.stats()["failed"] == 1 and not job.delivery.wait(0.0, reading=False)


def test_a_lease_that_is_answered_twice_in_one_message_counts_once(party):
    job = party()
    worker = job.worker("a")
    job.offer(4)
    (lease,) = worker.pull()
    specs = [TensorSpec(name="logits", dtype="float32", shape=[4])]
    result = Result(rows=[LeaseRows(lease=lease, count=4)], version="", compute_s=0.0, tensors=specs)
    twice = Result(
        rows=[*result.rows, *result.rows],
        version="",
        compute_s=0.0,
        tensors=[TensorSpec(name="logits", dtype="float32", shape=[8])],
    )
    worker.say(Labels(results=[twice, result]), bytes(32), bytes(16))
    stats = job.service.stats()
    assert (stats["done"], stats["duplicates"], stats["teachers"]) == (1, 1, 1)
    assert job.delivery.wait(0.0, reading=False)


def test_answers_of_a_worker_that_is_not_known_any_more_are_counted(party):
    job = party(heartbeat_ttl_s=1.0)
    worker = job.worker("a")
    job.offer(4)
    (lease,) = worker.pull()
    job.turn(0.4)
    job.turn(0.4)
    job.turn(0.4)
    assert job.service.teachers() == 0
    worker.label(lease)
    stats = job.service.stats()
    assert (stats["duplicates"], stats["late"]) == (1, 1)


def test_a_task_that_failed_three_times_is_poison_when_its_last_worker_is_overdue_too(party):
    """Nobody is at work on it in time any more: that is found out by the clock."""
    job = party(Flow(max_attempts=1, first_deadline_s=0.5, min_deadline_s=0.5), heartbeat_ttl_s=1e9)
    slow, failing = job.worker("slow"), job.worker("failing")
    job.offer(4)
    (first,) = slow.pull()
    job.turn(0.4)
    (second,) = failing.pull()
    failing.fail(second)
    assert not job.delivery.wait(0.0, reading=False), "the first may still label it"
    job.turn(0.4)
    with pytest.raises(PoisonTaskError, match="boom"):
        job.delivery.wait(0.0, reading=False)
    slow.label(first)
    assert job.delivery.wait(0.0, reading=False), "and in the end it has"
    assert job.delivery.deliver().failure is None
    job.delivery.validate()


def test_a_late_answer_fills_in_what_others_have_left_with_the_right_rows(party):
    job = party(Flow(first_deadline_s=0.5, min_deadline_s=0.5), heartbeat_ttl_s=1e9, hedge_after_s=1e9)
    big, small = job.worker("big"), job.worker("small")
    job.offer(6)
    (whole,) = big.pull(6)
    job.turn(0.6)
    (part,) = small.pull(2)
    small.label(part, samples=2)
    big.label(whole, samples=6)
    assert job.delivery.wait(0.0, reading=False)
    assert job.delivery.deliver().labels()["teacher"]["logits"].flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_poison_that_is_skipped_says_on_its_batch_why(party):
    job = party(Flow(max_attempts=1), skip_poison=True)
    worker = job.worker("a")
    job.offer(4)
    (lease,) = worker.pull()
    worker.fail(lease)
    assert job.delivery.wait(0.0, reading=False)
    poison = job.delivery.deliver().failure
    assert poison is not None and poison.samples == range(4) and poison.attempts == ["boom"]


def test_samples_that_nobody_can_label_put_no_worker_into_quarantine(party):
    job = party(Flow(high_watermark=30), skip_poison=True)
    first, second = job.worker("first"), job.worker("second")
    job.offer(*[4] * 20)
    for number in range(20):
        for worker in (first, second) if number % 2 else (second, first):
            worker.fail(*worker.pull(), certain=True)
        poison = job.delivery.deliver().failure
        assert poison is not None and len(poison.attempts) == 2
    assert job.service.stats()["failed"] == 40
    assert not [event for event, _ in job.events() if "quarantine" in event]


def test_a_worker_that_says_so_of_whatever_it_gets_is_the_one_that_is_sick(party):
    job = party(Flow(high_watermark=30))
    sick, well = job.worker("sick"), job.worker("well")
    job.offer(*[4] * 4)
    for _ in range(4):
        sick.fail(*sick.pull(), certain=True)
        well.label(*well.pull())
        assert job.delivery.deliver().failure is None
    assert [reason for event, reason in job.events() if "quarantine" in event] == ["boom"]
    job.offer(4)
    assert sick.pull() == [] and "4 failures in a row" in sick.answer.quarantine


def test_a_worker_that_fails_every_task_is_no_flood_of_warnings(party, caplog):
    job = party(
        Flow(max_attempts=1, high_watermark=30), skip_poison=True, heartbeat_ttl_s=1e9, connect_timeout_s=1e9
    )
    worker = job.worker("a")
    job.offer(*[4] * 24)
    for _ in range(24):
        job.turn(60.0)  # out of quarantine
        worker.fail(*worker.pull())
    job.service.leave()
    said = [record.message for record in caplog.records if "worker a failed a task: boom" in record.message]
    assert len(said) == 3 and said[-1].endswith("(14 more)")


def test_tasks_that_others_get_because_their_worker_is_late_are_an_event(party):
    job = party(Flow(first_deadline_s=0.5, min_deadline_s=0.5), heartbeat_ttl_s=1e9)
    worker = job.worker("a")
    job.offer(4)
    worker.pull()
    job.turn(0.6)
    (event,) = job.service._events._waiting
    assert event.event == "task_requeued" and event.fields["worker"] == "a" and event.fields["tasks"] == 1
