"""Workers are asked about the same samples before they label, and now and then: a student's service, turn by
turn."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from edldist.agreement import AgreementBounds
from edldist.labels.comparison import Compared
from edldist.student.batch.batch import OpenBatch
from edldist.student.queue.flow import Flow
from edldist.wire.messages import Failure, Idle, Labels, LeaseRows, Pull, Result, Return, TensorSpec
from tests.unit.party import Party, Worker, pass_time

BOUNDS = AgreementBounds(every_s=60.0)
SAMPLES = 8
GOOD = torch.arange(SAMPLES * 3, dtype=torch.float32).reshape(SAMPLES, 3).sin() * 3
WRONG = GOOD.flip(-1)
NOT_ASKED = "it was asked nothing"


def offer(job: Party, *, samples: int = SAMPLES, alike: bool = False) -> None:
    x = torch.zeros(samples) if alike else torch.arange(samples, dtype=torch.float32)
    job.service.offer(OpenBatch(None, {"x": x}, samples))


def questions(worker: Worker) -> list:
    """Pull: the leases of what is asked; none if tasks came, or nothing."""
    worker.pull(SAMPLES)
    if isinstance(worker.answer, Idle):
        return []
    leases = [lease for group in worker.answer.groups for lease in group.leases]
    return leases if leases[0].compared else []


def reply(worker: Worker, leases: list, logits: Tensor | list[Tensor], pull: Pull | None = None) -> None:
    """Answer what was asked; with a list, each lease in another way."""
    results, frames = [], []
    for at, lease in enumerate(leases):
        rows = (logits[at] if isinstance(logits, list) else logits)[: lease.samples]
        packed = Compared().encode({"logits": rows})
        specs = [
            TensorSpec(name=name, dtype=str(tensor.dtype)[6:], shape=list(tensor.shape))
            for name, tensor in packed.items()
        ]
        counts = [LeaseRows(lease=lease.id, count=lease.samples)]
        results.append(Result(rows=counts, version="", compute_s=0.0, tensors=specs))
        frames += [tensor.numpy().tobytes() for tensor in packed.values()]
    worker.say(Labels(results=results, pull=pull), *frames)


def join(job: Party, name: str, logits: Tensor | list[Tensor], **hello) -> Worker:
    """A worker that greets, is asked, and answers."""
    worker = job.worker(name, **hello)
    leases = questions(worker)
    assert leases, NOT_ASKED
    reply(worker, leases, logits)
    return worker


def aside(worker: Worker) -> str:
    """Why it is put aside, as it was told last."""
    told = [message.quarantine for message in worker.hear() if isinstance(message, Idle)]
    return told[-1] if told else ""


@pytest.fixture
def job(party) -> Party:
    made = party(agreement=BOUNDS)
    offer(made)
    return made


def test_a_worker_is_asked_twice_before_it_labels(job):
    worker = job.worker("a")
    whole, half = questions(worker)
    assert (whole.samples, half.samples) == (SAMPLES, SAMPLES // 2) and not whole.own_pass
    assert not worker.pull() and worker.answer.quarantine == "", "not before it has answered"
    reply(worker, [half], GOOD)
    assert not worker.pull()
    reply(worker, [whole], GOOD)
    assert worker.pull(SAMPLES), "and it was woken"
    worker.label(*worker.held, samples=SAMPLES, width=3)
    assert job.delivery.wait(0.0, reading=False)
    stats = job.service.stats()
    assert (stats["done"], stats["aside"], stats["differs_nats"]) == (1, 0, 0.0)


def test_without_bounds_nobody_is_asked(party):
    job = party()
    offer(job)
    assert not questions(job.worker("a")) and "aside" not in job.service.stats()


def test_an_outlier_gets_no_tasks_and_is_named_with_its_host_and_what_to_do(job, caplog):
    join(job, "a", GOOD, host="alpha")
    with caplog.at_level(logging.WARNING):
        outlier = join(job, "b", WRONG, host="beta")
    assert "worker b on beta of teacher 'teacher' is put aside: it differs from worker a" in caplog.text
    assert "nats off, and agreement.max_nats allows 0.1" in caplog.text
    assert "raise that bound" in caplog.text
    assert "its output 'logits' is " in aside(outlier)
    assert not outlier.pull() and "it differs from worker a" in outlier.answer.quarantine
    assert job.service.stats()["aside"] == 1
    assert [what for what, _ in job.events()] == ["teacher_put_aside"]
    assert job.service.stats()["doubtful"] == 0


def test_a_first_worker_that_two_others_outvote_is_asked_for_nothing_more_and_its_labels_are_made_anew(job):
    offer(job)
    wrong = join(job, "a", WRONG)
    consumed, open_one = wrong.pull(2 * SAMPLES)
    wrong.label(consumed, samples=SAMPLES, width=3)
    wrong.label(open_one, samples=SAMPLES, width=3)
    assert job.delivery.deliver() is not None
    offer(job)
    (held,) = wrong.pull(SAMPLES)
    join(job, "b", GOOD)
    assert not wrong.party.service._peers.find("a").aside, "of two nobody can tell"
    right = join(job, "c", GOOD + 0.001)
    stats = job.service.stats()
    assert (stats["retracted"], stats["doubtful"], stats["requeued"]) == (SAMPLES, SAMPLES, 1)
    wrong.label(held, samples=SAMPLES, width=3, first=500)
    assert job.service.stats()["duplicates"] == 1, "what it still sends is not taken"
    again = right.pull(2 * SAMPLES)
    right.label(*again, samples=SAMPLES, width=3, first=100)
    for _ in range(2):
        labels = job.delivery.deliver().labels()["teacher"]["logits"]
        assert labels[0, 0] == 100, "of the worker that others agree with"
    (event,) = [event for event in job.service._events._waiting if event.fields.get("worker") == "a"][:1]
    assert (event.fields["retracted"], event.fields["consumed"]) == (SAMPLES, SAMPLES)


def test_a_worker_that_drifts_is_found_when_it_is_asked_again_and_only_its_labels_since_are_in_doubt(job):
    drifting = join(job, "a", GOOD)
    other = join(job, "b", GOOD)
    drifting.label(*drifting.pull(SAMPLES), samples=SAMPLES, width=3)
    job.delivery.deliver()
    pass_time(job, BOUNDS.every_s + 1, drifting, other)
    (asked,) = questions(drifting)
    reply(drifting, [asked], GOOD)
    offer(job)
    offer(job)
    drifting.label(*drifting.pull(SAMPLES), samples=SAMPLES, width=3)
    job.delivery.deliver()
    pass_time(job, BOUNDS.every_s + 1, drifting, other)
    (asked,) = questions(drifting)
    reply(drifting, [asked], WRONG)
    assert "it does not answer any more what it answered itself at first" in aside(drifting)
    assert job.service.stats()["doubtful"] == SAMPLES, "not those before it last agreed"
    (asked,) = questions(other)
    reply(other, [asked], GOOD)
    assert other.pull(SAMPLES)


def test_who_is_put_aside_is_asked_again_later_and_labels_when_it_agrees(job):
    join(job, "a", GOOD)
    outlier = join(job, "b", WRONG)
    assert not outlier.pull()
    pass_time(job, BOUNDS.every_s - 1, outlier)
    assert not questions(outlier)
    pass_time(job, 2.0, outlier)
    leases = questions(outlier)
    assert len(leases) == 2
    reply(outlier, leases, GOOD)
    assert outlier.pull(SAMPLES) and job.service.stats()["aside"] == 0
    assert [what for what, _ in job.events()] == ["teacher_put_aside", "teacher_readmitted"]


def test_a_model_that_answers_two_ways_is_put_aside_alone_too(job):
    worker = join(job, "a", [GOOD, GOOD * 2])
    assert "it answers two ways" in aside(worker) and "dropout" in worker.party.events()[0][1]
    assert not worker.pull()


def test_a_model_that_fails_on_what_others_label_is_put_aside(job):
    join(job, "a", GOOD)
    nan = job.worker("b")
    leases = questions(nan)
    error = "Traceback\nModelError: output 'logits' is NaN"
    nan.say(Failure(leases=[lease.id for lease in leases], error=error))
    assert "fails on samples that a labels: ModelError: output 'logits' is NaN" in aside(nan)
    assert job.service.stats()["failed"] == 0, "no task has suffered"


def test_a_question_that_nobody_can_answer_is_replaced_and_real_tasks_tell_what_is_wrong(job):
    first = job.worker("a")
    first.say(Failure(leases=[lease.id for lease in questions(first)], error="a bad sample"))
    assert not aside(first) and not questions(first), "it gets tasks"
    assert first.held, "it gets tasks"
    offer(job)
    second = join(job, "b", GOOD)
    assert not aside(second)
    first.label(*first.held, samples=SAMPLES, width=3)
    offer(job)
    leases = questions(first)
    assert leases, "it is asked now, because somebody could answer"
    reply(first, leases, WRONG)
    assert "it differs from worker b" in aside(first)


def test_answers_of_another_shape_are_named(job):
    join(job, "a", GOOD)
    other = join(job, "b", torch.randn(SAMPLES, 5))
    assert "is [8] distributions over 5 classes, and not [8] distributions over 3 classes" in aside(other)


def test_a_constant_is_named_and_gives_way_to_anything_else(job, caplog):
    with caplog.at_level(logging.WARNING):
        constant = join(job, "a", GOOD[:1].expand(SAMPLES, 3), host="alpha")
    assert "worker a on alpha of teacher 'teacher' answers the same for 8 samples that differ" in caplog.text
    assert constant.pull(SAMPLES), "there is nothing else"
    right = join(job, "b", GOOD)
    assert "it differs from worker b" in aside(constant) and right.pull(SAMPLES)


def test_the_same_answer_for_samples_that_are_alike_is_no_constant(party, caplog):
    job = party(agreement=BOUNDS)
    offer(job, alike=True)
    with caplog.at_level(logging.WARNING):
        join(job, "a", GOOD[:1].expand(SAMPLES, 3))
    assert not caplog.text


@pytest.mark.parametrize("how", ["wrong rows", "garbage"])
def test_an_answer_that_is_none_is_a_failure(job, how):
    join(job, "a", GOOD)
    other = job.worker("b")
    lease = questions(other)[0]
    rows = 3 if how == "wrong rows" else SAMPLES
    spec = TensorSpec(name="logits.compared@3", dtype="int32", shape=[rows, 7 if how == "wrong rows" else 5])
    made = Result(rows=[LeaseRows(lease=lease.id, count=rows)], version="", compute_s=0.0, tensors=[spec])
    other.say(Labels(results=[made]), bytes(4 * rows * spec.shape[1]))
    assert "its model fails on samples that a labels: worker b:" in aside(other)


@pytest.mark.parametrize("how", ["given back", "lost on the way"])
def test_a_question_that_gets_lost_is_asked_again(job, how):
    worker = job.worker("a")
    leases = questions(worker)
    if how == "given back":
        worker.say(Return(leases=[leases[1].id]))
    else:
        job.service._pinging.reconcile(job.service._peers.find("a"), _pong_without(job, "a"))
    again = questions(worker)
    assert again and {lease.id for lease in again}.isdisjoint({lease.id for lease in leases})
    reply(worker, leases, WRONG)
    reply(worker, again, GOOD)
    assert worker.pull(SAMPLES)


def _pong_without(job: Party, name: str):
    from edldist.wire.messages import Pong

    peer = job.service._peers.find(name)
    job.service._pinging.ping(peer)
    return Pong(seq=max(peer.pings), held=[], pulled=0, asleep=False)


def test_a_worker_that_dies_while_it_is_asked_leaves_nothing_behind(job):
    worker = job.worker("a")
    assert questions(worker)
    worker.sever()
    worker.link.close()
    pass_time(job, 4.0)
    assert job.service.teachers() == 0 and not job.service._comparing._asked
    assert join(job, "b", GOOD).pull(SAMPLES)


def test_large_batches_and_long_samples_are_asked_about_in_part(party):
    job = party(agreement=BOUNDS)
    offer(job, samples=100)
    assert [lease.samples for lease in questions(job.worker("a"))] == [32, 16]
    job = party(agreement=BOUNDS)
    job.service.offer(OpenBatch(None, {"x": torch.zeros(4, 5 << 20, dtype=torch.uint8)}, 4))
    assert [lease.samples for lease in questions(job.worker("a"))] == [1, 1]


def test_fixed_cuts_are_asked_for_in_passes_of_their_own(party):
    job = party(Flow(fixed=True), agreement=BOUNDS)
    offer(job)
    assert all(lease.own_pass for lease in questions(job.worker("a")))
