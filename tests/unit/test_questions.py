"""What all workers of a group are asked: questions that kill, hang, get lost or are replaced; versions."""

from __future__ import annotations

import msgspec
import pytest
import torch

from edldist.agreement import AgreementBounds
from edldist.labels.codec import make_codec
from edldist.labels.grammar import parse_spec
from edldist.student.queue.flow import Flow
from edldist.wire.messages import Failure, Goodbye, Idle, Labels, LeaseRows, Result, Return, TensorSpec, Wake
from tests.greetings import fingerprint
from tests.unit.party import Party, Worker, of, pass_time, raw
from tests.unit.test_comparing import (
    BOUNDS,
    GOOD,
    NOT_ASKED,
    SAMPLES,
    WRONG,
    aside,
    join,
    offer,
    questions,
    reply,
)

DEADLINE_S = 10.0


@pytest.fixture
def job(party) -> Party:
    made = party(Flow(first_deadline_s=DEADLINE_S, high_watermark=30), agreement=BOUNDS)
    offer(made)
    return made


def asked(job: Party, name: str, **hello) -> Worker:
    """A worker that is asked, and has not answered."""
    worker = job.worker(name, **hello)
    assert questions(worker), NOT_ASKED
    return worker


def kill(job: Party, *workers: Worker, others: tuple[Worker, ...] = ()) -> None:
    """Workers are killed; those ``others`` live on."""
    before = job.service.teachers()
    for worker in workers:
        worker.sever()
        worker.link.close()
    pass_time(job, 4.0, *others)
    assert job.service.teachers() == before - len(workers)


def fail(worker: Worker) -> None:
    """Its model fails on what it is asked."""
    worker.say(Failure(leases=[lease.id for lease in questions(worker)], error="a bad sample"))


def version(number: int) -> dict:
    return {"fingerprint": fingerprint(version=str(number), weights=f"w{number}")}


# --- questions that kill ----------------------------------------------------------------------------------


def test_a_question_on_which_two_in_a_row_were_killed_is_asked_no_more(job):
    kill(job, asked(job, "a"))
    kill(job, asked(job, "b"))
    third = job.worker("c")
    assert not questions(third) and third.held, "it gets tasks instead"


def test_who_answers_or_fails_in_between_shows_that_it_kills_nobody(job):
    kill(job, asked(job, "a"))
    good = join(job, "b", GOOD)
    kill(job, asked(job, "c"), others=(good,))
    failing = job.worker("d")
    fail(failing)
    kill(job, asked(job, "e"), others=(good, failing))
    asked(job, "f")


def test_who_leaves_in_peace_was_not_killed(job):
    for name in "abc":
        worker = asked(job, name)
        worker.say(Goodbye(id=name))
    asked(job, "d")


def test_another_question_is_as_innocent_as_the_first_was(job):
    kill(job, asked(job, "a"))
    kill(job, asked(job, "b"))
    offer(job)
    kill(job, asked(job, "c"))
    kill(job, asked(job, "d"))
    assert not questions(job.worker("e"))


def test_who_dies_of_a_former_question_says_nothing_of_the_next(job):
    slow = asked(job, "slow")
    kill(job, asked(job, "a"), others=(slow,))
    kill(job, asked(job, "b"), others=(slow,))
    offer(job)
    first = asked(job, "c")
    kill(job, slow, others=(first,))
    kill(job, first)
    asked(job, "d")


def test_a_question_that_is_not_answered_for_long_counts_once(job):
    hanging = asked(job, "a")
    pass_time(job, DEADLINE_S + 1, hanging)
    second = asked(job, "b")
    kill(job, hanging, others=(second,))
    third = asked(job, "c")
    pass_time(job, DEADLINE_S + 1, second, third)
    assert not questions(job.worker("d")), "the two others hang, too"


# --- questions that get lost ------------------------------------------------------------------------------


def test_a_worker_sleeps_until_it_has_answered_and_is_woken_then(job):
    worker = job.worker("a")
    leases = questions(worker)
    assert not worker.pull(SAMPLES)
    offer(job)
    pass_time(job, 0.5)
    assert not of(Wake, worker), "there is nothing for it yet"
    reply(worker, leases, GOOD)
    assert of(Wake, worker)


def test_a_worker_is_woken_to_be_asked_again(job):
    worker = job.worker("a")
    leases = questions(worker)
    assert not worker.pull(SAMPLES)
    worker.say(Return(leases=[leases[0].id]))
    assert of(Wake, worker) and questions(worker)


@pytest.mark.parametrize("how", ["answers", "failures"])
def test_what_comes_of_a_question_that_was_asked_anew_is_late(job, how: str):
    worker = job.worker("a")
    leases = questions(worker)
    worker.say(Return(leases=[leases[1].id]))
    again = questions(worker)
    if how == "answers":
        reply(worker, leases, WRONG)
    else:
        worker.say(Failure(leases=[lease.id for lease in leases], error="too late"))
    stats = job.service.stats()
    assert (stats["late"], stats["duplicates"], stats["failed"]) == (2, 2, 0)
    reply(worker, again, GOOD)
    assert worker.pull(SAMPLES)


@pytest.mark.parametrize("how", ["answers", "fails"])
def test_who_was_asked_a_former_question_is_asked_the_new_one(job, how: str):
    slow = job.worker("slow")
    leases = questions(slow)
    kill(job, asked(job, "a"), others=(slow,))
    kill(job, asked(job, "b"), others=(slow,))
    offer(job)
    join(job, "c", GOOD)
    if how == "answers":
        reply(slow, leases, WRONG)
    else:
        slow.say(Failure(leases=[leases[0].id], error="boom"))
    assert not aside(slow)
    stats = job.service.stats()
    assert (stats["failed"], stats["late"], stats["duplicates"]) == (0, 0, 0)
    again = questions(slow)
    assert again, NOT_ASKED
    reply(slow, again, GOOD)
    assert not aside(slow)


def test_one_answer_to_both_questions_is_none(job):
    join(job, "a", GOOD)
    other = job.worker("b")
    whole, half = questions(other)
    rows = [LeaseRows(lease=whole.id, count=5), LeaseRows(lease=half.id, count=3)]
    spec = TensorSpec(name="logits.values@3", dtype="float32", shape=[SAMPLES, 3])
    made = Result(rows=rows, version="", compute_s=0.0, tensors=[spec])
    other.say(Labels(results=[made]), GOOD.numpy().tobytes())
    assert "its model fails on samples that a labels: " in aside(other)
    stats = job.service.stats()
    assert (stats["failed"], stats["late"], stats["duplicates"]) == (0, 0, 0)


# --- failures ---------------------------------------------------------------------------------------------


def test_a_question_that_somebody_has_answered_is_asked_on_although_others_fail(job):
    join(job, "a", GOOD)
    fail(job.worker("b"))
    asked(job, "c")


def test_who_failed_is_asked_again_after_a_while(job):
    good = join(job, "a", GOOD)
    failing = job.worker("b")
    fail(failing)
    assert "its model fails" in aside(failing)
    pass_time(job, BOUNDS.every_s - 1, good, failing)
    assert not questions(failing)
    pass_time(job, 2.0, good, failing)
    assert questions(failing)


def test_a_failure_on_a_question_is_none_of_a_task(job):
    join(job, "a", GOOD)
    failing = job.worker("b")
    failing.say(Failure(leases=[questions(failing)[0].id], error="a bad sample"))
    stats = job.service.stats()
    assert (stats["failed"], stats["late"], stats["duplicates"]) == (0, 0, 0)
    assert "its model fails" in aside(failing)


# --- answers ----------------------------------------------------------------------------------------------


def answer(worker: Worker, **outputs: torch.Tensor) -> None:
    """Answer both questions with outputs as they are, whatever their shapes."""
    leases = questions(worker)
    results, frames = [], []
    for lease in leases:
        rows = {
            name: tensor if tensor.dim() < 1 else tensor[: lease.samples] for name, tensor in outputs.items()
        }
        specs = [
            TensorSpec(name=name, dtype="float32", shape=list(tensor.shape)) for name, tensor in rows.items()
        ]
        count = [LeaseRows(lease=lease.id, count=lease.samples)]
        results.append(Result(rows=count, version="", compute_s=0.0, tensors=specs))
        frames += [tensor.contiguous().numpy().tobytes() for tensor in rows.values()]
    worker.say(Labels(results=results), *frames)


def test_what_an_engine_sends_is_compared_in_its_own_codec(job):
    """It fronts a model of which it has no more than the most probable entries."""
    spec = parse_spec("topk:2")
    top = {"fingerprint": msgspec.structs.replace(fingerprint(), codec=spec)}

    def answered(name: str, logits: torch.Tensor) -> Worker:
        worker = job.worker(name, **top)
        results, frames = [], []
        for lease in questions(worker):
            packed = make_codec(spec).encode({"logits": logits[: lease.samples]})
            specs = [
                TensorSpec(name=part, dtype=str(tensor.dtype)[6:], shape=list(tensor.shape))
                for part, tensor in packed.items()
            ]
            count = [LeaseRows(lease=lease.id, count=lease.samples)]
            results.append(Result(rows=count, version="", compute_s=0.0, tensors=specs))
            frames += [tensor.contiguous().view(torch.uint8).numpy().tobytes() for tensor in packed.values()]
        worker.say(Labels(results=results), *frames)
        return worker

    assert not aside(answered("a", GOOD)) and not aside(answered("b", GOOD))
    assert "it differs from worker a" in aside(answered("c", WRONG))


@pytest.mark.parametrize(
    "more",
    [
        {"score": torch.zeros(3)},
        {"score": torch.tensor(1.0)},
        {"good": torch.zeros(8), "score": torch.zeros(3)},
    ],
    ids=["few rows", "no rows", "one of two"],
)
def test_outputs_without_a_row_for_each_sample_are_a_failure(job, more):
    answer(job.worker("a"), **dict.fromkeys(more, torch.zeros(8)))
    other = job.worker("b")
    answer(other, **more)
    assert "its model fails on samples that a labels: " in aside(other)
    stats = job.service.stats()
    assert (stats["failed"], stats["done"]) == (0, 0)


def test_outputs_that_are_no_distributions_are_compared_by_their_own_bound(party):
    job = party(agreement=AgreementBounds(every_s=60.0, max_nats=0.5, max_relative=0.001))
    offer(job)
    score = torch.arange(8, dtype=torch.float32) + 1
    answer(job.worker("a"), score=score)
    alike, other = job.worker("b"), job.worker("c")
    answer(alike, score=score * 1.0001)
    assert not aside(alike) and 0 < job.service.stats()["differs_relative"] < 0.001
    answer(other, score=score * 1.01)
    assert "agreement.max_relative allows 0.001" in aside(other)


def test_the_largest_difference_among_those_that_label_is_told(job):
    join(job, "a", GOOD)
    assert job.service.stats()["differs_nats"] == 0
    assert not aside(join(job, "b", GOOD * 1.05))
    largest = job.service.stats()["differs_nats"]
    assert 0 < largest < BOUNDS.max_nats
    assert not aside(join(job, "c", GOOD * 1.01)) and aside(join(job, "d", WRONG))
    assert job.service.stats()["differs_nats"] == largest


def test_a_constant_is_told_of_once(job, caplog):
    constant = join(job, "a", GOOD[:1].expand(SAMPLES, 3))
    pass_time(job, BOUNDS.every_s + 1, constant)
    reply(constant, questions(constant), GOOD[:1].expand(SAMPLES, 3))
    assert caplog.text.count("answers the same for 8 samples that differ") == 1


def test_who_was_put_aside_by_mistake_labels_when_others_turn_out_to_be_like_it(job, caplog):
    offer(job)
    wrong = join(job, "a", WRONG)
    (held,) = wrong.pull(SAMPLES)
    right = join(job, "b", GOOD)
    assert aside(right)
    raw(wrong)
    join(job, "c", GOOD)
    (told,) = of(Idle, wrong)
    assert told == Idle(seq=wrong.seq, buffered=0, quarantine=told.quarantine) and told.quarantine
    assert right.pull(SAMPLES) and not wrong.pull(SAMPLES)
    assert job.events()[0][0] == "teacher_put_aside"
    assert ("task_requeued", "it was put aside") in job.events()
    assert ("teacher_readmitted", None) in job.events()
    assert "since it last agreed" not in caplog.text


def test_of_who_drifts_it_is_told_that_what_came_since_is_in_doubt(job, caplog):
    drifting, other = join(job, "a", GOOD), join(job, "b", GOOD)
    pass_time(job, BOUNDS.every_s + 1, drifting, other)
    reply(drifting, questions(drifting), WRONG)
    assert aside(drifting) and "that the loop has had since it last agreed are in doubt" in caplog.text


# --- who is gone ------------------------------------------------------------------------------------------


def test_a_worker_that_has_gone_agrees_with_nobody_and_stays_the_measure(job):
    first, second = join(job, "a", GOOD), join(job, "b", GOOD)
    first.say(Goodbye(id="a"))
    assert "it differs from worker a: " in aside(join(job, "c", WRONG)), "and from no other one"
    second.say(Goodbye(id="b"))
    assert "it differs from worker a: " in aside(join(job, "d", WRONG))


def test_the_last_worker_of_a_group_stays_the_measure(job):
    join(job, "a", GOOD).say(Goodbye(id="a"))
    assert "worker a, which has gone or changed since" in aside(join(job, "b", WRONG))


# --- versions and groups ----------------------------------------------------------------------------------


@pytest.fixture
def rolling(party) -> Party:
    made = party(Flow(high_watermark=30), agreement=BOUNDS, versions={"teacher": 3})
    offer(made)
    return made


def test_workers_of_two_versions_may_differ_and_those_of_one_may_not(rolling):
    join(rolling, "a", GOOD, **version(1))
    assert not aside(join(rolling, "b", WRONG, **version(2)))
    assert "it differs from worker a" in aside(join(rolling, "c", WRONG, **version(1)))
    assert "it differs from worker b" in aside(join(rolling, "d", GOOD, **version(2)))


def test_what_a_version_answered_is_no_measure_any_more_once_it_has_gone_beside_another(rolling):
    first, second = join(rolling, "a", GOOD, **version(1)), join(rolling, "b", GOOD, **version(1))
    join(rolling, "newer", GOOD, **version(2))
    first.say(Goodbye(id="a"))
    third = join(rolling, "c", WRONG, **version(1))
    assert aside(third), "another one of it is here"
    third.say(Goodbye(id="c"))
    second.say(Goodbye(id="b"))
    assert not aside(join(rolling, "d", WRONG, **version(1)))


def test_a_question_that_another_version_answers_is_a_good_one(rolling):
    join(rolling, "a", GOOD, **version(1))
    fail(rolling.worker("b", **version(2)))
    asked(rolling, "c", **version(2))


def test_a_version_that_has_gone_says_nothing_of_a_question_on_which_the_next_one_fails(rolling):
    offer(rolling)
    rolling.worker("a", **version(1)).say(Goodbye(id="a"))
    second = rolling.worker("b", **version(2))
    fail(second)
    assert not aside(second) and not questions(second) and second.held, "it gets tasks"
    third = rolling.worker("c", **version(2))
    assert not questions(third) and third.held, "and another one is not asked what nobody can answer"


def test_a_new_question_of_one_group_is_none_of_another(party):
    job = party(Flow(high_watermark=30), teachers=("teacher", "other"), agreement=BOUNDS)
    offer(job)
    other = join(job, "other", GOOD, teacher="other")
    kill(job, asked(job, "a"), others=(other,))
    kill(job, asked(job, "b"), others=(other,))
    offer(job)
    asked(job, "c")
    assert not questions(other)
