"""The Lightning example, whole, at toy size."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def test_the_job_trains_one_model_on_two_ranks_and_reports_what_lightning_logs(tmp_path: Path) -> None:
    settings = ["student.args=[--epochs, 2]", "student.nproc_per_node=2"]
    options = [part for setting in settings for part in ("--set", setting)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDLDIST_")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "launch" / "__main__.py"), "run", "examples/lightning/job.yaml"]
        + ["--output", str(tmp_path / "out"), *options],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (result["status"], result["steps"]) == ("completed", 38)
    said = re.findall(
        r"^accuracy (.*)%", (tmp_path / "out" / "logs" / "student-0.log").read_text(), re.MULTILINE
    )
    assert said == [f"{100 * result['metrics']['accuracy']:.2f}"] * 2, "one model, on both ranks"
