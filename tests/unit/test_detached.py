"""``edldist run --detach`` says of a job what ``edldist run`` says, where it is not started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import edldist_launch.local.backend
from edldist.checkpoint.manifest import MARKER
from edldist.errors import ConfigError, LaunchError
from edldist_launch.job.detached import start_detached
from edldist_launch.job.resolve import resolve_job
from edldist_launch.local.backend import LocalBackend
from edldist_launch.plan.plan import Plan
from edldist_launch.record.folder import JobFolder
from tests.unit.jobs import write_toy

OUTPUT = Path("out/toy")


@pytest.fixture
def job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_toy(tmp_path, "--epochs", 100)


def leave(job_file: Path, result: dict[str, object], checkpoint: int | None = None) -> None:
    with JobFolder(OUTPUT, resolve_job(job_file, ())) as folder:
        if checkpoint is not None:
            whole = folder.path / "checkpoints" / f"step-{checkpoint:08d}"
            whole.mkdir()
            (whole / MARKER).write_text("")
        folder.result(result)


def test_a_refusal_keeps_its_advice(job_file: Path) -> None:
    leave(job_file, {"status": "interrupted"}, checkpoint=40)
    with pytest.raises(ConfigError) as refused:  # by the launcher itself
        start_detached(job_file, ["student.args=[--epochs, 101]"], OUTPUT, "resume")
    said = str(refused.value)
    assert "of another configuration:\n  student.args[1]: 100 -> 101\nChoose: --output" in said
    assert "--fresh" in said and "--extend" in said


def test_a_finished_job_is_shown_and_is_no_error(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave(job_file, {"status": "completed", "steps": 7})
    assert start_detached(job_file, (), OUTPUT, "resume") == 0
    assert "out/toy holds this job's finished run: nothing was started" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="the result of a finished run"):
        start_detached(job_file, ["student.args=[--epochs, 101]"], OUTPUT, "resume")
    LocalBackend(OUTPUT).start(Plan(resolve_job(job_file, ()), job_file.parent, OUTPUT))  # as on Slurm
    with pytest.raises(LaunchError, match="no job was started"):
        LocalBackend(OUTPUT).state()


def test_what_a_launcher_said_that_names_no_error_is_passed_on(
    job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", "print('no space'); raise SystemExit(1)"]
    monkeypatch.setattr(edldist_launch.local.backend, "own_command", lambda *words: list(command))
    with pytest.raises(LaunchError, match="^edldist run did not start the job: no space$"):
        start_detached(job_file, (), OUTPUT, "resume")
    assert not OUTPUT.exists()
