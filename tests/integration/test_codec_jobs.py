"""Codecs between a worker and a loop: the labels that a loop gets, and what workers and students are told."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch
from torch import Tensor

from edldist.errors import ContractError, IncompatibleError, PoisonTaskError
from edldist.labels.head import head_digest
from edldist.labels.typed import GatheredLabels, HiddenLabels, SampledLabels, TopKLabels
from edldist.wire.zmq.transport import ZmqTransport
from tests.harness import local_job
from tests.integration.commands import edldist
from tests.models import Words

pytestmark = pytest.mark.timeout(240)

GROUPS = {"top": "topk:8", "drawn": "rs:6", "asked": "gather:2", "state": "hidden"}


def batches(count: int, samples: int = 6, tokens: int = 5) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    return [
        {
            "ids": torch.randint(0, 50, (samples, tokens), generator=generator),
            "gather_ids": torch.randint(0, Words.vocabulary, (samples, tokens, 2), generator=generator),
        }
        for _ in range(count)
    ]


@pytest.mark.slow
def test_labels_of_worker_processes_are_those_of_the_model_whatever_their_codec():
    model, given = Words(), batches(6)
    given.insert(3, {name: tensor[:0] for name, tensor in given[0].items()})  # a batch without samples
    with local_job(ZmqTransport()) as job, contextlib.ExitStack() as stack:
        for name, codec in GROUPS.items():
            options = ("--name", name, "--codec", codec, "--model", "tests.models:Words", "--device", "cpu")
            stack.enter_context(
                edldist("teacher", "--coordinator", job.address, *options, "--batch-size", "4")
            )
        inputs = dict.fromkeys(GROUPS, "ids") | {"asked": ("ids", "gather_ids")}
        loader = job.loader(given, inputs, teacher=list(GROUPS), codec=GROUPS)
        came = 0
        for batch, labels in loader:
            samples = batch["ids"].shape[0]
            with torch.no_grad():
                said = model(batch["ids"])
            log_p = said["logits"].log_softmax(-1)
            came += 1
            top, drawn = labels["top/logits"], labels["drawn/logits"]
            asked, state = labels["asked/logits"], labels["state/hidden"]
            assert isinstance(top, TopKLabels) and isinstance(drawn, SampledLabels)
            assert isinstance(asked, GatheredLabels) and isinstance(state, HiddenLabels)
            assert top.ids.shape == (samples, 5, 8) and drawn.ids.shape == (samples, 5, 6)
            torch.testing.assert_close(top.log_probs, log_p.gather(-1, top.ids), rtol=0, atol=0.05)
            assert torch.equal(top.ids, log_p.topk(8).indices)
            assert (drawn.dense().sum(-1) - 1).abs().le(1e-5).all() and drawn.vocabulary == Words.vocabulary
            softened = (said["logits"] / 2).log_softmax(-1)
            torch.testing.assert_close(asked.log_probs, softened.gather(-1, batch["gather_ids"]))
            assert state.head == head_digest(model.head.weight, model.head.bias)
            torch.testing.assert_close(state.hidden.float(), said["hidden"], rtol=2**-8, atol=0)
            assert "asked/hidden" in labels and torch.equal(labels["asked/hidden"], said["hidden"])
        assert came == len(given) and loader.stats()["failed"] == 0


@pytest.mark.parametrize("codec", ["topk:4", "gather", "int8"])
def test_a_second_worker_with_another_vocabulary_is_refused_naming_both(memory_job, caplog, codec):
    first = memory_job.teacher("scores", batch_size=2, codec=codec, model_args={"vocabulary": 300})
    one = batches(1)[0] | {"gather_ids": torch.zeros(6, 5, 2, dtype=torch.int64)}
    inputs = ("ids", "gather_ids") if codec == "gather" else "ids"
    loader = memory_job.loader(itertools.repeat(one, 20_000), inputs)
    steps = iter(loader)
    next(steps)
    memory_job.teacher("scores", batch_size=2, codec=codec, model_args={"vocabulary": 200})
    for _, labels in steps:
        assert getattr(labels["logits"], "vocabulary", 300) == 300
        if "refused teacher worker" in caplog.text:
            break
    part = codec.partition(":")[0]
    assert f"is not like worker {first.worker_id}" in caplog.text
    assert f"outputs logits.{part}@200 instead of logits.{part}@300" in caplog.text
    assert (
        isinstance(labels["logits"], GatheredLabels) or codec == "int8" or labels["logits"].vocabulary == 300
    )
    memory_job.errors[:] = [error for error in memory_job.errors if not isinstance(error, IncompatibleError)]


def test_a_deterministic_job_draws_the_same_for_a_sample_whoever_draws(memory_job):
    for _ in range(3):
        memory_job.teacher("Words", batch_size=3, codec="rs:6")
    given = batches(8)
    epochs = []
    for _ in range(2):
        loader = memory_job.loader(given, "ids", deterministic=True, task_size=2)
        epochs.append(torch.cat([labels["logits"].ids for _, labels in loader]))
        loader.close()
    assert torch.equal(*epochs)
    free = memory_job.loader(given, "ids")
    assert not torch.equal(epochs[0], torch.cat([labels["logits"].ids for _, labels in free]))


@pytest.mark.parametrize(
    ("codec", "inputs", "words"),
    [
        ("topk:301", "ids", r"keeps K=301 entries, and output 'logits' \(.*\) has 300: lower K to 300"),
        (
            "gather",
            "ids",
            "no 'gather_ids' came with the samples: have inputs= of the student's DistillLoader or",
        ),
        ("gather", "gather_ids", "nothing came for the model: gather_ids is for codec gather alone"),
    ],
)
def test_what_no_attempt_could_pack_is_said_at_once(memory_job, codec, inputs, words):
    memory_job.teacher("Words", codec=codec)
    loader = memory_job.loader(batches(3), inputs)
    with pytest.raises(ContractError, match=words):
        next(iter(loader))


def test_an_id_outside_the_vocabulary_and_a_logit_that_is_none_name_their_place(memory_job):
    for _ in range(3):
        memory_job.teacher("Words", codec="gather")
    given = batches(2)
    given[1]["gather_ids"][4, 2, 1] = Words.vocabulary
    loader = memory_job.loader(given, ("ids", "gather_ids"))
    steps = iter(loader)
    next(steps)
    wrong = r"'gather_ids': 300 at sample \d of the task, position 2 is no entry.*which has 300"
    with pytest.raises(PoisonTaskError, match=wrong) as caught:
        next(steps)
    assert len(caught.value.attempts) == 2, "another worker has confirmed it"
    loader.close()
    for _ in range(3):
        memory_job.teacher("spoilt_scores", name="spoilt", codec="topk:3")
    spoilt = memory_job.loader([{"ids": torch.tensor([[1, 2], [3, 49]])}], "ids", teacher="spoilt")
    wrong = r"'logits': a logit is nan at sample \d of the task, position 1"
    with pytest.raises(PoisonTaskError, match=wrong):
        next(iter(spoilt))


def test_a_model_without_a_head_cannot_serve_hidden_states(memory_job):
    with pytest.raises(Exception, match=r"codec hidden: the head of the model \(function\)"):
        memory_job.teacher("scores", codec="hidden")
