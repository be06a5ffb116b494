"""``edldist init``: what it makes runs at once, reads as code should, and names what it is not given."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edldist.config import ReplicaRange, load_job
from edldist.errors import ConfigError
from edldist_launch.job.starter import FILES, make_starter
from edldist_launch.plan.commands import own_command

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.timeout(240)


def edldist(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDLDIST_")}
    return subprocess.run(
        own_command(*args),
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


@pytest.mark.slow
def test_a_new_job_folder_runs_at_once_and_again(tmp_path: Path) -> None:
    made = edldist(tmp_path, "init", "mine")
    command = made.stdout.splitlines()[-1].split()
    assert (made.returncode, command) == (0, ["edldist", "run", "mine/job.yaml"]), made.stderr
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == sorted(FILES)
    done = edldist(tmp_path, *command[1:], "--set", "student.args=[--epochs, 8]")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "out" / "mine" / "result.json").read_text())
    assert (result["status"], result["epochs"], result["steps"]) == ("completed", 8, 8 * 22)
    said = re.search(r"the teacher gets (\d+\.\d)% of the test images right", done.stdout)
    assert said is not None and float(said[1]) > 88
    assert result["metrics"]["accuracy"] > 0.8


def test_its_job_file_shows_what_moves_and_its_texts_know_its_name(tmp_path: Path) -> None:
    folder = make_starter(tmp_path / "my-job.2")
    job = load_job(folder / "job.yaml")
    assert job.name == "my-job.2" and isinstance(job.teachers[0].replicas, ReplicaRange)
    assert "# my-job.2\n" in (folder / "README.md").read_text()
    assert not any("@" in (folder / name).read_text() for name in FILES)


def test_its_code_passes_the_checks_of_this_project(tmp_path: Path) -> None:
    folder = make_starter(tmp_path / "mine")
    for command in (
        ["check", "--isolated", "--select", "E,F,B,UP,SIM", "--line-length", "110"],
        ["format", "--check", "--isolated", "--line-length", "110"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, str(folder)], capture_output=True, text=True, check=False
        )
        if "No module named ruff" in done.stderr:
            pytest.skip("ruff is not importable here")
        assert done.returncode == 0, done.stdout


def test_the_student_is_so_much_smaller_as_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_starter(tmp_path / "mine")
    code = (
        "import models\n"
        "print([sum(p.numel() for p in make().parameters()) for make in (models.teacher, models.student)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True, timeout=150
    )
    teacher, student = json.loads(done.stdout)
    assert round(teacher / student) == 40
    assert "40 times smaller" in (folder / "models.py").read_text()


@pytest.mark.parametrize("name", ["..", ".", "-x", "a b", "ä", "a" * 101, ".hidden"])
def test_a_name_that_no_job_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a job: use up to 100 letters"):
        make_starter(Path(f"{tmp_path}/{name}") if name not in (".", "..") else Path(name))
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("folder", "file", "link"):
        with pytest.raises(ConfigError, match=f"{name} exists: choose another name"):
            make_starter(tmp_path / name)
    assert list((tmp_path / "folder").iterdir()) == [] and (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ConfigError, match=r"file is a file: no folder can be made in it"):
        make_starter(tmp_path / "file" / "inside")
    with pytest.raises(ConfigError, match=r"cannot write /proc/mine: "):
        make_starter(Path("/proc/mine"))
    again = edldist(tmp_path, "init", "folder")
    assert (again.returncode, again.stdout) == (2, "")
