"""A loop that learns from HTTP engines gets the labels of their model, also when engines come and go."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import torch
from torch import Tensor

from edldist import Sequences
from edldist.errors import ContractError, EngineLostError, PoisonTaskError
from edldist.labels.typed import TopKLabels
from edldist.wire.zmq.transport import ZmqTransport
from tests.engines import CONTEXT, VOCABULARY, Engine, engine
from tests.fault.harness import wait_for
from tests.harness import LocalJob, local_job
from tests.integration.commands import edldist

pytestmark = pytest.mark.timeout(240)

K = 8
SETTINGS = {"vocabulary": VOCABULARY, "retry_s": 0.01, "retries": 2, "wait_s": 10}
INPUTS = Sequences("input_ids", mask="attention_mask", asked="asked")


def batches(count: int, samples: int = 4, width: int = 12) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    made = []
    for _ in range(count):
        lengths = torch.randint(1, width + 1, (samples, 1), generator=generator)
        asked = torch.rand(samples, width, generator=generator) < 0.7
        made.append(
            {
                "input_ids": torch.randint(0, VOCABULARY, (samples, width), generator=generator),
                "attention_mask": (torch.arange(width) < lengths).long(),
                "asked": asked | (torch.arange(width) == 0),
            }
        )
    return made


def worker(job: LocalJob, server: Engine, **options):
    return job.teacher(server.reference, codec=f"topk:{K}", model_args=SETTINGS, batch_size=64, **options)


def check(batch: dict[str, Tensor], labels, model) -> None:
    """Against the model itself, by which labels of a worker that has it are checked elsewhere."""
    mask = labels["mask"]
    assert torch.equal(mask, batch["asked"] & batch["attention_mask"].bool())
    with torch.no_grad():
        log_p = model(batch["input_ids"]).log_softmax(-1)[mask]
    top = labels["logits"]
    assert isinstance(top, TopKLabels) and top.vocabulary == VOCABULARY
    values, ids = log_p.topk(K)
    assert torch.equal(top.ids[mask], ids)
    torch.testing.assert_close(top.log_probs[mask], values, rtol=0, atol=0.04)
    torch.testing.assert_close(top.log_tail[mask].exp(), 1 - values.exp().sum(-1), rtol=0, atol=3e-3)
    assert top.log_probs[~mask].isnan().all()


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_a_loop_cannot_tell_an_engine_from_the_model_itself(kind):
    data = batches(12)
    with engine(kind) as server, local_job(ZmqTransport()) as job:
        worker(job, server, name="outside")
        job.teacher("tiny_lm", name="inside", codec=f"topk:{K}", batch_size=64)
        loader = job.loader(data, INPUTS, teacher=["outside", "inside"])
        for batch, labels in loader:
            mask = labels["inside/mask"]
            assert torch.equal(mask, labels["outside/mask"])
            mine, theirs = labels["inside/logits"], labels["outside/logits"]
            assert torch.equal(mine.ids[mask], theirs.ids[mask])
            torch.testing.assert_close(mine.log_probs, theirs.log_probs, rtol=0, atol=0.03, equal_nan=True)
            check(batch, {"mask": mask, "logits": theirs}, server.model)
        assert loader.stats()["samples"] == sum(len(batch["input_ids"]) for batch in data)
        assert job.errors == []


@pytest.mark.parametrize("options", [{}, {"deterministic": True}])
def test_padded_batches_are_labelled_as_they_are_and_padding_is_nan(options):
    data = batches(8)
    with engine("vllm") as server, local_job(ZmqTransport()) as job:
        worker(job, server)
        for batch, labels in job.loader(data, ("input_ids", "attention_mask"), **options):
            mask = batch["attention_mask"].bool()
            check(batch | {"asked": mask}, {"mask": mask} | labels, server.model)
        assert job.errors == []


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_every_sample_is_labelled_while_engines_die_and_come_back(kind):
    """Each dies when it is asked for something next: nobody misses one that nobody asks."""
    data = batches(240)
    fell: list[Engine] = []

    def fall(server: Engine, number: int) -> None:
        if server not in fell:
            fell.append(server)
            server.die()  # this request has been read, and is not answered

    with engine(kind) as one, engine(kind) as other, local_job(ZmqTransport()) as job:
        worker(job, one)
        worker(job, other)
        came, before = 0, None
        for batch, labels in job.loader(data, INPUTS):
            check(batch, labels, one.model)
            came += 1
            if came == 15:
                one.on_request = partial(fall, one)
            if job.errors and before is None:  # its worker has given it up
                one.come_back()
                before = one.answered
                worker(job, one)  # as whoever keeps workers running would
                other.on_request = partial(fall, other)
        wait_for("the other's worker to give it up", lambda: len(job.errors) == 2)
        assert fell == [one, other] and came == len(data) and one.answered > before
    assert [type(error) for error in job.errors] == [EngineLostError] * 2
    assert all("Its worker ends, and others get its tasks" in str(error) for error in job.errors)


def test_an_engine_that_dies_in_the_middle_of_a_request_costs_nothing():
    data = batches(30)
    with engine("vllm") as one, engine("vllm") as other, local_job(ZmqTransport()) as job:
        worker(job, one)
        worker(job, other)
        fell = threading.Event()

        def fall(number: int) -> None:
            if not fell.is_set():
                fell.set()
                one.die()  # this request has been read, and is not answered

        one.on_request = fall
        for batch, labels in job.loader(data, INPUTS):
            check(batch, labels, other.model)
    assert fell.is_set() and [type(error) for error in job.errors] == [EngineLostError]


def test_a_value_that_stays_missing_ends_the_loop_with_where_it_is():
    with engine("vllm") as server, local_job(ZmqTransport()) as job:
        worker(job, server)
        server.faults.change = lambda entries: [*entries[:3], (entries[3][0], None), *entries[4:]]
        with pytest.raises(
            PoisonTaskError, match=r"no number \(null or NaN\) came as the log-probability of id"
        ):
            list(job.loader(batches(2), INPUTS))


def test_a_sequence_longer_than_the_context_ends_it_at_once():
    with engine("sglang") as server, local_job(ZmqTransport()) as job:
        worker(job, server)
        data = [{"input_ids": torch.ones(1, CONTEXT + 1, dtype=torch.int64)}]
        with pytest.raises(ContractError, match=f"context of {CONTEXT} tokens"):
            list(job.loader(data, Sequences("input_ids")))


def test_the_command_ends_with_its_engine_and_says_why():
    data = batches(60)
    with engine("vllm") as one, engine("vllm") as other, local_job(ZmqTransport()) as job:
        settings = [f"--model-arg={name}={value}" for name, value in SETTINGS.items()]
        command = ("teacher", "--coordinator", job.address, "--model", one.reference, *settings)
        with edldist(*command, "--codec", f"topk:{K}", "--batch-size", "64") as process:
            loader = iter(job.loader(data, INPUTS))
            for came in range(len(data)):
                batch, labels = next(loader)
                check(batch, labels, one.model)
                if came == 9:
                    worker(job, other)
                if came == 19:
                    one.die()
            said, _ = process.communicate(timeout=60)
            assert process.returncode == 1 and "is lost: " in said
        assert other.answered and job.errors == []
