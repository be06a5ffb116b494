"""The language-model example at toy size, with every kind of labels, and a worker killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from examples.lm import models, on_policy, recipe, text
from examples.lm.training import train_on_text
from tests.harness import local_job

ROOT = Path(__file__).resolve().parents[2]


def test_a_model_says_at_each_byte_what_it_would_say_had_the_text_ended_there() -> None:
    torch.manual_seed(0)
    model = models.student().eval()
    tokens = torch.randint(text.TOKENS, (2, 20))
    outputs = model(tokens)
    torch.testing.assert_close(outputs["logits"][:, :7], model(tokens[:, :7])["logits"])
    torch.testing.assert_close(model.head(outputs["hidden"]), outputs["logits"])


def test_nobody_trains_on_the_text_that_judges() -> None:
    judged = bytes(text.held_out().flatten().tolist())
    for amount in ("all", "scarce"):
        read = bytes(text.read(amount).tolist())
        assert not any(judged[at : at + 100] in read for at in range(0, len(judged) - 100, 50))
    assert len(text.read("scarce")) < len(text.read("all")) / 15


def test_a_draw_is_the_same_window_whoever_asks() -> None:
    one, other = (text.Draws(text.read("scarce"), 50, seed=3) for _ in range(2))
    assert all(torch.equal(one[number]["tokens"], other[number]["tokens"]) for number in range(50))
    assert one[0]["tokens"].shape == (text.WINDOW + 1,)


def test_a_few_steps_on_text_help() -> None:
    torch.manual_seed(0)
    model = models.student()
    before = recipe.bits_per_byte(model, text.held_out())
    after = train_on_text(model, text.read("scarce"), 5, seed=0)
    assert len(after) == 1 and after[0] < before < 9


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("codec", ["dense:fp16", "topk:32", "rs:18", "head+rs:8:12", "int8", "hidden"])
def test_the_job_runs_with_labels_of_any_kind_and_a_worker_that_is_killed(tmp_path: Path, codec: str) -> None:
    torch.manual_seed(0)
    weights = ROOT / "examples" / "lm" / "build" / "teacher.safetensors"
    made = not weights.exists()
    if made:  # any weights will do, and stay where the example looks for them only while this runs
        weights.parent.mkdir(exist_ok=True)
        save_file(models.teacher().state_dict(), weights)
    output = "hidden" if codec == "hidden" else "logits"
    settings = [
        "prepare=null",
        f"teachers.0.codec={codec}",
        f"teachers.0.outputs=[{output}]",
        "student.args=[--steps, 40]",
    ]
    options = [part for setting in settings for part in ("--set", setting)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDLDIST_")}
    out = tmp_path / "out"
    job = subprocess.Popen(
        [sys.executable, str(ROOT / "launch" / "__main__.py"), "run", "examples/lm/job.yaml"]
        + ["--output", str(out), *options],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        kill_one_worker(out / "events.jsonl", job)
        said, _ = job.communicate(timeout=300)
    finally:
        job.kill()
        job.wait()
        if made:
            weights.unlink()
    assert job.returncode == 0, said
    result = json.loads((out / "result.json").read_text())
    assert (result["status"], result["steps"], result["samples"]) == ("completed", 40, 40 * recipe.BATCH)
    assert result["teachers"]["lost"] >= 1 and 0 < result["metrics"]["bits_per_byte"] < 9


def kill_one_worker(events: Path, job: subprocess.Popen[str]) -> None:
    """Once both label."""
    until = time.monotonic() + 200
    while time.monotonic() < until and job.poll() is None:
        lines = events.read_text().splitlines() if events.exists() else []
        joined = [e for e in map(json.loads, lines) if e["event"] == "teacher_joined"]
        if len(joined) == 2:
            os.kill(joined[0]["pid"], signal.SIGKILL)
            return
        time.sleep(0.05)
    raise AssertionError("two workers never joined")


@pytest.mark.slow
def test_the_student_writes_what_it_is_asked_about() -> None:
    torch.manual_seed(0)
    model = models.student()
    own = on_policy.Writer(model, text.read("scarce"), seed=0)
    first, second = own.write(), own.write()
    length = on_policy.PROMPT + on_policy.WRITTEN
    assert first["tokens"].shape == (recipe.BATCH, length) and not first["tokens"].equal(second["tokens"])
    assert first["gather_ids"].shape == (recipe.BATCH, length, on_policy.DRAWN)
    assert first["written"].sum(1).tolist() == [on_policy.WRITTEN + 1] * recipe.BATCH
    again = on_policy.Writer(model, text.read("scarce"), seed=0).write()
    assert again["tokens"].equal(first["tokens"])


@pytest.mark.timeout(120)
def test_the_student_learns_from_what_it_has_just_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with local_job() as job:
        job.teacher("examples.lm.models:teacher", codec="gather", outputs="logits", batch_size=2048)
        monkeypatch.setenv("EDLDIST_COORDINATOR", job.address)
        monkeypatch.setattr(sys, "argv", ["on_policy.py", "--steps", "1", "--own-steps", "2"])
        on_policy.main()
        assert job.errors == []
    assert "after 2 steps on its own text" in capsys.readouterr().out
