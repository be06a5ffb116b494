"""``edldist submit slurm``, one submission after another: which folder, and what it goes on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from edldist.checkpoint.manifest import MARKER
from edldist.config import load_job
from edldist_launch.job.on_slurm import submit_to_slurm
from edldist_launch.slurm import placer as placer_module
from edldist_launch.slurm.backend import SlurmBackend
from tests.unit.fake_slurm import FakeSlurm

TEXT = """\
name: toy
prepare: {script: p.py}
teachers: [{model: "a:b", weights: w.pt, vocabulary: v}, {name: big, model: "hf:m#Auto"}]
student: {script: s.py}
"""


@pytest.fixture
def job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In a folder below the current one."""
    (tmp_path / "toy").mkdir()
    monkeypatch.chdir(tmp_path)
    for name in ("p.py", "s.py"):
        (tmp_path / "toy" / name).write_text("")
    path = tmp_path / "toy" / "job.yaml"
    path.write_text(TEXT)
    return path


def live(output: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch, made: Callable[[], object]) -> None:
    """What a submitted job does to its folder: prepare, run up to a checkpoint, and be stopped."""
    made()
    monkeypatch.setattr(placer_module, "Placer", lambda *about: SimpleNamespace(run=lambda interrupts: 0))
    placer_module.run_placer(output, slurm)
    whole = output / "checkpoints" / "step-00000040"
    whole.mkdir()
    (whole / MARKER).write_text("")
    (output / "result.json").write_text('{"status": "interrupted"}')
    slurm.tasks.clear()


@pytest.mark.parametrize("where", ["beside", "here"])
@pytest.mark.parametrize("start_in_the_folder", [True, False])
def test_the_same_submit_goes_on_when_the_preparation_made_what_teachers_load(
    job_file: Path, monkeypatch: pytest.MonkeyPatch, where: str, start_in_the_folder: bool
) -> None:
    if start_in_the_folder:
        monkeypatch.chdir(job_file.parent)
    place = job_file.parent if where == "beside" else Path.cwd()

    def made() -> None:
        (place / "m").mkdir()
        for name in ("w.pt", "v"):
            (place / name).write_text("")

    slurm = FakeSlurm()
    assert submit_to_slurm(job_file, (), None, slurm=slurm) == 0
    output = Path("out", "toy")
    live(output, slurm, monkeypatch, made)
    first, second = load_job(output / "job.yaml").teachers
    assert (first.weights, first.vocabulary) == (str(place / "w.pt"), str(place / "v"))
    assert second.model == f"hf:{place / 'm'}#Auto"
    assert submit_to_slurm(job_file, (), None, slurm=slurm) == 0
    assert slurm.tasks and not Path("out", "toy-2").exists()
    slurm.tasks.clear()
    assert submit_to_slurm(job_file, (), output, slurm=slurm) == 0
    assert SlurmBackend(output, slurm=slurm).state().name == "toy"
