"""The Hugging Face example, whole, at toy size."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from examples.huggingface.data import splits

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_job_trains_one_model_and_reports_what_the_trainer_logs(tmp_path: Path, ranks: int) -> None:
    settings = ["student.args=[--epochs, 2]", f"student.nproc_per_node={ranks}"]
    options = [part for setting in settings for part in ("--set", setting)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDLDIST_")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "__main__.py"), "run", "examples/huggingface/job.yaml"]
        + ["--output", str(tmp_path / "out"), *options],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    _, windows, _ = splits()
    steps = 2 * -(-len(windows) // (32 * ranks))  # of 16 windows a rank, two of them accumulated
    assert (result["status"], result["steps"], result["samples"]) == ("completed", steps, 2 * len(windows))
    log = (tmp_path / "out" / "logs" / "student-0.log").read_text()
    said = re.findall(r"^loss (.*) nats a byte", log, re.MULTILINE)
    assert said == [f"{result['metrics']['eval_loss']:.3f}"]


def test_the_student_gets_a_part_of_what_the_teacher_read_and_neither_sees_the_test() -> None:
    read, given, test = ({bytes(window.tolist()).decode() for window in each.windows} for each in splits())
    assert given < read and 3 < len(read) / len(given) < 5
    assert not any(window[:24] in other for window in test for other in read)
