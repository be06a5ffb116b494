"""Texts and bytes reach a teacher that asks for them, over the wire and out of a data set."""

from __future__ import annotations

import pytest
import torch

import tests.models
from edldist.errors import ContractError, PoisonTaskError
from edldist.wire.memory import MemoryTransport
from edldist.wire.zmq.transport import ZmqTransport
from tests.harness import local_job

pytestmark = pytest.mark.timeout(240)

PROMPTS = [f"{'é' * (7 * number % 50)} {number}" for number in range(40)]


@pytest.fixture(params=[MemoryTransport, ZmqTransport])
def job(request):
    with local_job(request.param()) as made:
        yield made
        assert made.errors == []


def numbers(texts) -> torch.Tensor:
    """What the teachers here label a text with: its length and its number."""
    return torch.tensor([[len(text), int(text.split()[-1])] for text in texts])


@pytest.fixture
def readers(monkeypatch):
    """Teachers that read."""
    monkeypatch.setattr(tests.models, "reads", lambda: lambda prompt: numbers(prompt), raising=False)
    monkeypatch.setattr(
        tests.models,
        "decodes",
        lambda: lambda raw, id: numbers([t.decode() for t in raw]) + id[:, None],
        raising=False,
    )
    monkeypatch.setattr(tests.models, "first", lambda: lambda texts: numbers(texts), raising=False)
    monkeypatch.setattr(
        tests.models, "prompts", lambda: [{"prompt": text} for text in PROMPTS], raising=False
    )


def labels_of(loader) -> torch.Tensor:
    return torch.cat([labels["logits"] for _, labels in loader])


@pytest.mark.parametrize("batch_size", [3, 8, 64])
def test_each_text_gets_its_own_label_however_batches_are_cut(job, readers, batch_size):
    for _ in range(2):
        job.teacher("reads", batch_size=batch_size)
    batches = [{"prompt": PROMPTS[at : at + 5]} for at in range(0, 40, 5)]
    loader = job.loader(batches, inputs="prompt")
    seen, labels = zip(*[(batch["prompt"], labels["logits"]) for batch, labels in loader], strict=True)
    assert list(seen) == [batch["prompt"] for batch in batches], "the loop gets its own batch"
    assert torch.equal(torch.cat(labels), numbers(PROMPTS))
    assert loader.stats()["failed"] == 0


def test_bytes_come_beside_tensors(job, readers):
    job.teacher("decodes")
    raw = [text.encode() for text in PROMPTS[:6]]
    loader = job.loader([{"raw": raw, "id": torch.arange(6)}], inputs=("raw", "id"))
    assert torch.equal(labels_of(loader), numbers(PROMPTS[:6]) + torch.arange(6)[:, None])


def test_a_batch_may_be_a_list_of_texts(job, readers):
    job.teacher("first")
    assert torch.equal(labels_of(job.loader([PROMPTS[:4], PROMPTS[4:8]])), numbers(PROMPTS[:8]))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_data_set_of_texts_is_read_by_the_worker(job, readers, threads):
    job.teacher("reads", dataset="tests.models:prompts", dataset_threads=threads)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    loader = job.loader([{"index": part} for part in order.split(7)], inputs="index")
    assert torch.equal(labels_of(loader), numbers([PROMPTS[at] for at in order]))


def test_a_pipeline_of_transformers_teaches(job, monkeypatch, tmp_path):
    transformers = pytest.importorskip("transformers")
    words = sorted({word for text in PROMPTS for word in text.split() if word.isdecimal()})
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    tokenizer = transformers.BertTokenizer.from_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=5 + len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, num_labels=3
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config).eval()
    classify = transformers.pipeline("text-classification", model=model, tokenizer=tokenizer, top_k=None)

    def label(prompt: list[str]) -> torch.Tensor:
        scores = [{each["label"]: each["score"] for each in one} for one in classify(prompt)]
        return torch.tensor([[one[name] for name in sorted(one)] for one in scores])

    monkeypatch.setattr(tests.models, "pipeline", lambda: label, raising=False)
    job.teacher("pipeline", batch_size=8)
    labels = labels_of(job.loader([{"prompt": PROMPTS[at : at + 5]} for at in (0, 5)], inputs="prompt"))
    torch.testing.assert_close(labels, label(PROMPTS[:10]))


def test_a_teacher_that_takes_no_texts_says_what_it_takes(job, readers):
    job.teacher()
    with pytest.raises(ContractError, match=r"\('prompt'\): missing .* 'id'"):
        list(job.loader([{"prompt": ["a"]}], inputs="prompt"))


def test_a_text_that_fails_is_named_by_its_place(job, readers):
    job.teacher("reads")
    batches = [{"prompt": PROMPTS[:2]}, {"prompt": ["fine 1", "bad"]}]
    with pytest.raises(PoisonTaskError, match="invalid literal for int") as caught:
        list(job.loader(batches, inputs="prompt", task_size=1))
    assert (caught.value.batch, caught.value.samples) == (1, range(1, 2))
