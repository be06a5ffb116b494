"""What a student's I/O thread looks after beside messages: versions, absences, questions, a trace."""

from __future__ import annotations

import logging

import torch

from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.teacher_inputs import TeacherInputs
from edldist.student.queue.flow import Flow
from edldist.tracing.kinds import Kind
from edldist.tracing.tape import Record, records_of
from edldist.wire.messages import Refused, Wake
from tests.greetings import fingerprint
from tests.unit.party import Party, of, pass_time
from tests.unit.test_comparing import BOUNDS, GOOD, WRONG, join, offer, questions


def version(number: int) -> dict:
    """What a worker of this version of its teacher says of itself."""
    return {"fingerprint": fingerprint(version=str(number), weights=f"w{number}")}


# --- versions ------------------------------------------------------------------------------------------


def test_workers_of_the_oldest_version_are_turned_away_by_the_first_of_a_newer_one(party):
    job = party(versions={"teacher": 2})
    oldest, older = job.worker("oldest", **version(1)), job.worker("older", **version(2))
    assert job.service.teachers() == 2
    job.worker("newest", **version(3))
    (refused,) = of(Refused, oldest)
    assert "has version 1, and labels are taken of the 2 newest only, 3, 2" in refused.reason
    assert [worker.name for worker in job.service._peers] == ["older", "newest"]
    assert not of(Refused, older)


def test_labels_of_a_version_that_is_too_old_now_are_asked_for_again(party):
    job = party(versions={"teacher": 1})
    job.offer(4, 4)
    old = job.worker("old", **version(1))
    first, _ = old.pull(8)
    old.label(first, version="1")
    new = job.worker("new", **version(2))
    again = new.pull(8)
    assert len(again) == 2, "what was labelled, and what was not"
    new.label(*again, version="2", first=100)
    assert job.delivery.deliver().labels()["teacher"]["logits"].flatten().tolist() == [100, 101, 102, 103]


# --- blame ---------------------------------------------------------------------------------------------


def test_a_worker_that_was_right_about_hopeless_samples_has_not_failed(party):
    """Three of its failures are confirmed by another one: the fourth, which is not, is its first."""
    job = party(Flow(high_watermark=30), skip_poison=True)
    first, second = job.worker("first"), job.worker("second")
    job.offer(*[4] * 6)
    for _ in range(3):
        first.fail(*first.pull(), certain=True)
        second.fail(*second.pull(), certain=True)
        assert job.delivery.deliver().failure is not None
    for _ in range(3):
        first.fail(*first.pull())
        assert not [event for event, _ in job.events() if "quarantine" in event]


# --- absent groups -------------------------------------------------------------------------------------


def test_batches_go_on_without_a_group_that_had_no_worker_for_as_long_as_was_said(party, caplog):
    job = party(teachers=("teacher", "other"), skip_after_s={"other": 5.0})
    worker = job.worker("a")
    job.offer(4)
    worker.label(*worker.pull())
    pass_time(job, 4.8, worker)
    assert not job.delivery.wait(0.0, reading=False)
    pass_time(job, 0.4, worker)
    assert job.delivery.wait(0.0, reading=False)
    labels = job.delivery.deliver().labels()
    assert labels["teacher"]["logits"].flatten().tolist() == [0, 1, 2, 3]
    assert "logits" not in labels["other"]
    assert "teacher 'other' has had no worker for 5." in caplog.text


def test_a_batch_without_any_labels_waits_for_a_group_however_long(party):
    patience = {"teacher": 5.0, "other": 5.0}
    job = party(teachers=("teacher", "other"), skip_after_s=patience)
    job.offer(4)
    pass_time(job, 6.0)
    assert not job.delivery.wait(0.0, reading=False)
    assert job.events() == [("labels_missing", None), ("labels_missing", None)]
    worker = job.worker("a")
    worker.label(*worker.pull())
    assert job.delivery.wait(0.0, reading=False), "now it has some"


# --- batches of which a teacher sees a part ----------------------------------------------------------------


def routed(batch: object = None) -> OpenBatch:
    """Six samples, of which the teacher sees every other one."""
    places = torch.tensor([-1, 0, -1, 1, -1, 2])
    seen = TeacherInputs({"x": torch.zeros(3)}, 3, places=places)
    return OpenBatch(batch, {"x": torch.zeros(6)}, 6, apart={"teacher": seen})


def test_poison_is_recorded_by_its_positions_in_the_batch(party):
    job = party(Flow(max_attempts=1), skip_poison=True)
    job.service.offer(routed())
    worker = job.worker("a")
    worker.fail(*worker.pull(2))
    (event,) = [event for event in job.service._events._waiting if event.event == "task_poisoned"]
    assert event.fields["samples"] == "1, 3"


def test_the_loop_gets_the_batch_that_was_offered_until_it_lets_it_go(party):
    job = party()
    job.service.offer(routed("what the data loader made"))
    worker = job.worker("a")
    worker.label(*worker.pull(3), samples=3)
    batch = job.delivery.deliver()
    assert batch.batch == "what the data loader made"
    batch.let_go()
    assert batch.batch is None


# --- questions -----------------------------------------------------------------------------------------


def test_a_worker_that_does_not_answer_a_question_is_told_of(party, caplog):
    job = party(Flow(first_deadline_s=10.0), agreement=BOUNDS)
    offer(job)
    worker = job.worker("a")
    assert questions(worker)
    with caplog.at_level(logging.WARNING):
        pass_time(job, 9.8, worker)
        assert "has not answered" not in caplog.text
        pass_time(job, 0.4, worker)
    assert (
        "worker a of teacher 'teacher' has not answered what all its group are asked for 10 s" in caplog.text
    )


def test_a_worker_that_was_put_aside_is_woken_when_it_is_to_be_asked_again(party):
    job = party(agreement=BOUNDS)
    offer(job)
    join(job, "a", GOOD)
    outlier = join(job, "b", WRONG)
    assert not outlier.pull()
    pass_time(job, BOUNDS.every_s - 1, outlier)
    assert not outlier.party.service.delivery.rouse(1e9, thorough=True)
    for _ in range(30):
        job.turn(0.1)
        if of(Wake, outlier):
            break
    else:
        raise AssertionError("nobody woke it")


# --- a trace -------------------------------------------------------------------------------------------


def records(job: Party, thread: str) -> list[Record]:
    tapes = {tape.thread: tape.records for tape in job.service.recorder.end()}
    return list(records_of(tapes[thread]))


def test_a_trace_tells_when_tasks_were_given_and_labels_came(party):
    job = party()
    job.service.recorder.begin(100, 1)
    worker = job.worker("a")
    job.offer(4, 3)
    job.turn(1.0)
    leases = worker.pull(7)
    job.clock.advance(0.5)
    worker.label(leases[0])
    number = job.service.recorder.number("a")
    assert records(job, "I/O") == [
        Record(Kind.LEASED, number, 4, 101.0, 101.0, leases[0], 0),
        Record(Kind.LEASED, number, 3, 101.0, 101.0, leases[1], 1),
        Record(Kind.SENT, number, 2, 101.0, 101.0, 0, 28),
        Record(Kind.PLACED, number, 4, 101.5, 101.5, leases[0], 0),
        Record(Kind.TAKEN, number, 1, 101.5, 101.5, 0, 16),
    ]


def test_nothing_is_written_down_while_nobody_traces(party):
    job = party()
    worker = job.worker("a")
    job.offer(4)
    worker.label(*worker.pull())
    job.delivery.deliver()
    assert job.service.stats()["done"] == 1
    assert all(tape.records == b"" for tape in job.service.recorder.end())


def test_a_trace_tells_when_batches_were_put_into_the_queue_and_taken_out(party):
    job = party()
    job.service.recorder.begin(100, 1)
    worker = job.worker("a")
    job.offer(4)
    job.clock.advance(0.5)
    worker.label(*worker.pull())
    job.clock.advance(1.5)
    job.delivery.deliver()
    assert records(job, "label queue") == [
        Record(Kind.QUEUED, 0, 4, 100.0, 100.0, 0, 16),
        Record(Kind.DELIVERED, 0, 4, 102.0, 102.0, 0, 0),
    ]
    times = job.delivery.stages["buffer"].told("buffer")
    assert (times.sum_s, sum(times.counts)) == (2.0, 1)
