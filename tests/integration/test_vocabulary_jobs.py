"""Jobs of real processes whose teacher and student have tokenizers of their own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edldist_launch.plan.commands import own_command

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]

JOB = """
name: words
teachers: [{model: 'hf:teacher', codec: 'topk:3', replicas: 2, batch_size: 64}]
student: {script: student.py, max_restarts: 0}
"""
STUDENT = """
import os
import edldist, torch
from torch.utils.data import DataLoader

ids = torch.arange(24).reshape(6, 4) % 5
vocabulary = edldist.Vocabulary("tokenizer", size=8, ids=os.environ.get("WORDS_IDS"))
loader = edldist.DistillLoader(
    DataLoader(ids, batch_size=2),
    inputs=lambda batch: {"input_ids": 4 - batch},  # the teacher has them the other way round
    vocabulary=vocabulary,
    checkpointed=False,
)
student, seen = torch.zeros(2, 4, 8, requires_grad=True), 0
for batch, labels in loader:
    loss = edldist.losses.forward_kl(student, labels["logits"])
    loss.backward()
    assert loss.isfinite() and labels["logits"].vocabulary == 8 and (labels["logits"].ids < 5).all()
    seen += 1
edldist.report(step=seen, unmapped=loader.stats()["unmapped"])
"""
WORDS = ["<unk>", "a", "b", "c", "d"]


def save_tokenizer(folder: Path, words: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    ids = {word: number for number, word in enumerate(words)}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="<unk>")).save(
        str(folder / "tokenizer.json")
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "student.py").write_text(STUDENT)
    config = transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=6, n_positions=8)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "teacher")
    save_tokenizer(tmp_path / "teacher", WORDS[::-1])
    save_tokenizer(tmp_path / "tokenizer", WORDS)
    return tmp_path


def ran(folder: Path, **variables: str) -> tuple[int, str, dict[str, Any]]:
    command = own_command("run", "job.yaml", "--output", "out", "--fresh")
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )
    return done.returncode, done.stdout, json.loads((folder / "out" / "result.json").read_text())


def test_a_job_whose_tokenizers_differ_ends_in_words_and_one_that_says_how_trains(folder: Path) -> None:
    code, said, result = ran(folder)
    said = " ".join(said.split())
    assert code == 1 and result["status"] == "failed", said
    assert "a vocabulary of 5 tokens, and this student another one of 5: id 0 is '<unk>' here and" in said
    assert result["teachers"]["lost"] == 0, "its workers are well"

    code, said, result = ran(folder, WORDS_IDS="match")
    assert code == 0, said
    assert result["steps"] == 3 and 0 <= result["metrics"]["unmapped"] < 1
