"""``edldist label`` with real processes, at toy size."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edldist_launch.plan.commands import own_command
from tests.label_files import check_numbers, listed_files

pytestmark = pytest.mark.timeout(240)

ROOT = Path(__file__).resolve().parents[2]
DATA = "numbers, version 1"
JOB = f"""\
name: toy
teachers: [{{model: "tests.models:identify", version: "1", batch_size: 64}}]
label: {{data: "tests.models:Numbers", kwargs: {{count: 600}}, inputs: id, ids: index, batch_size: 32,
  shard_rows: 200}}
store: {{path: kept, data: "{DATA}"}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(JOB)
    return tmp_path


def label(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    return subprocess.run(
        own_command("label", *options),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out" / "result.json").read_text())
    return found


@pytest.mark.parametrize("extended", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_data_set_is_labelled_once(folder: Path, extended: bool) -> None:
    run = label(folder, "job.yaml", "--output", "out")
    assert run.returncode == 0, run.stdout + run.stderr
    store = folder / "kept"
    check_numbers(store, DATA, 600)
    written = result(folder)
    (labels,) = written.pop("labels")
    assert (written["job"], written["status"], written["samples"]) == ("toy-labels", "completed", 600)
    assert (labels["samples"], labels["files"]) == (600, len(listed_files(store)))
    assert labels["bytes"] == sum(file.stat().st_size for file in listed_files(store))
    assert written["worker_s"] > 0
    assert written["steps"] == 600, "what the display counts"
    assert "600 samples in" in run.stdout
    if not extended:
        return
    again = label(folder, "job.yaml", "--output", "out", "--extend")
    assert again.returncode == 0, again.stdout + again.stderr
    assert result(folder)["tasks"]["done"] == 0, "what is in files is not asked for"
    check_numbers(store, DATA, 600)


def test_a_data_set_that_is_not_there_is_refused_and_starts_nothing(folder: Path) -> None:
    done = label(folder, "job.yaml", "--set", "label.data=tests.models:absent", "--dry-run")
    assert done.returncode == 2 and "has no 'absent'" in done.stderr, done.stdout
    assert not (folder / "out").exists()
