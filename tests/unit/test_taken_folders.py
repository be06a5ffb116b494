"""The folder of a job that goes on somewhere is nobody else's: not of a run on this machine either."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import edldist_launch.job.found
from edldist.config import dump_job
from edldist.errors import LaunchError
from edldist_launch.contract.submission import Submission
from edldist_launch.job.detached import start_detached
from edldist_launch.job.dry_run import describe_run
from edldist_launch.job.on_slurm import render_for_slurm
from edldist_launch.job.resolve import resolve_job
from edldist_launch.job.run import run_job
from edldist_launch.local.backend import LocalBackend
from edldist_launch.record.earlier import Beginning
from edldist_launch.record.folder import FolderHeldError, JobFolder, hold_folder
from tests.unit.jobs import write_toy

WAYS = {"run": run_job, "detach": start_detached, "dry_run": describe_run}


class Engine:
    """What a cluster says of the job that was handed to it."""

    phase = "pending"
    silent = False

    def state(self) -> Any:
        if self.silent:
            raise LaunchError("squeue: Unable to contact slurm controller")
        return SimpleNamespace(phase=self.phase)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    monkeypatch.setattr(edldist_launch.job.found, "backend_of", lambda submission, output: made)
    return made


@pytest.fixture
def job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_toy(tmp_path)


def hand_over(job_file: Path, output: Path, backend: Any) -> dict[Path, bytes]:
    """What lies in the folder of a job that a cluster has."""
    output.mkdir(parents=True)
    (output / "job.yaml").write_text(dump_job(resolve_job(job_file, ())))
    (output / "result.json").write_text("{}")
    Submission(backend, "toy", engine={"names": ["toy"]}).write(output)
    return read(output)


def read(output: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in output.rglob("*") if path.name != ".lock"}


@pytest.mark.parametrize("output", [None, Path("out/toy"), Path("elsewhere")])
@pytest.mark.parametrize("beginning", ["resume", "extend"])
@pytest.mark.parametrize("backend", ["slurm", "kubernetes"])
@pytest.mark.parametrize("way", WAYS)
def test_a_run_leaves_the_folder_of_a_job_alone_that_goes_on_on_a_cluster(
    engine: Engine, job_file: Path, way: str, backend: str, beginning: Beginning, output: Path | None
) -> None:
    folder = output or Path("out/toy")
    before = hand_over(job_file, folder, backend)
    for engine.phase in ("pending", "running", "leaving"):
        with pytest.raises(
            LaunchError, match=rf"^a job runs in .*{folder} \(toy, on {backend}\): stop it first"
        ):
            WAYS[way](job_file, (), output, beginning)
    engine.silent = True
    said = rf"{folder} has a job that was submitted to {backend} \(toy\), .*: squeue: Unable to contact"
    with pytest.raises(LaunchError, match=said):
        WAYS[way](job_file, (), output, beginning)
    assert read(folder) == before and sorted(path.name for path in folder.parent.glob("toy*")) in (
        ["toy"],
        [],
    )


def test_slurm_refuses_the_folder_of_another_engines_job(engine: Engine, job_file: Path) -> None:
    hand_over(job_file, Path("out/toy"), "kubernetes")
    with pytest.raises(LaunchError, match="on kubernetes"):
        render_for_slurm(job_file, (), None)


@pytest.mark.parametrize("phase", ["succeeded", "failed"])
def test_the_folder_of_a_job_that_has_ended_is_free_for_a_run_in_the_background(
    engine: Engine, job_file: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    hand_over(job_file, Path("out/toy"), "slurm")
    engine.phase = phase
    launched = []
    monkeypatch.setattr(LocalBackend, "_launch", lambda self, plan: launched.append(plan.output))
    assert start_detached(job_file, (), Path("out/toy"), "resume") == 0
    assert launched == [Path("out/toy").absolute()]
    with pytest.raises(LaunchError, match="^no job was started in"):
        LocalBackend(Path("out/toy")).state()


def test_who_holds_a_folder_is_said_by_the_name_of_the_job_where_that_is_known(
    job_file: Path, tmp_path: Path
) -> None:
    """The coordinator of a job on Slurm holds the lock, where the file system has locks."""
    job, output = resolve_job(job_file, ()), tmp_path / "out"
    output.mkdir()

    def refuse(path: Path) -> None:
        raise LaunchError("a job runs here: stop it first")

    with hold_folder(output):
        with pytest.raises(FolderHeldError, match="another run"):
            JobFolder(output, job)
        with pytest.raises(LaunchError, match="stop it first"):
            JobFolder(output, job, refuse=refuse)
