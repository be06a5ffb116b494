"""What becomes of an earlier run in an output folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edldist.checkpoint.manifest import MARKER
from edldist.config import JobConfig
from edldist.errors import ConfigError
from edldist_launch.record.earlier import EarlierRun, differences
from edldist_launch.record.eventfile import read_events
from edldist_launch.record.folder import JobFolder, open_default_folder


def job(args: tuple[str, ...] = (), name: str = "toy", **changes: Any) -> JobConfig:
    document = {
        "name": name,
        "teachers": [{"model": "a:b"}],
        "student": {"script": "s.py", "args": list(args)},
        **changes,
    }
    return JobConfig.model_validate(document)


def leave(folder: Path, of: JobConfig, status: str | None = None, checkpoint: int | None = None) -> None:
    """A run that ended with a status, or was killed."""
    with JobFolder(folder, of) as run:
        run.event({"t": 1.0, "event": "job_started"})
        if checkpoint is not None:
            whole = run.path / "checkpoints" / f"step-{checkpoint:08d}"
            whole.mkdir(parents=True)
            (whole / MARKER).write_text("")
        if status is not None:
            run.result({"status": status, "steps": 7, "metrics": {"accuracy": 0.5}})


def test_the_result_of_another_configuration_is_never_taken_for_ones_own(tmp_path: Path) -> None:
    leave(tmp_path, job(("--lr", "1")), "completed", checkpoint=7)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    del before[tmp_path / ".lock"]
    with pytest.raises(ConfigError) as refused:
        JobFolder(tmp_path, job(("--lr", "2", "--new")))
    said = str(refused.value)
    assert "the result of a finished run (7 steps) of another configuration" in said
    assert "\n  student.args[1]: 1 -> 2\n  student.args[2]: not given -> --new\n" in said
    assert all(choice in said for choice in ("--output FOLDER", "--fresh", "--extend"))
    assert {path: path.read_bytes() for path in before} == before


def test_a_checkpoint_of_another_configuration_is_not_gone_on_with(tmp_path: Path) -> None:
    leave(tmp_path, job(("1",)), "interrupted", checkpoint=40)
    with pytest.raises(ConfigError, match=r"an unfinished run, up to the checkpoint of step 40 of another"):
        JobFolder(tmp_path, job(("2",)))


@pytest.mark.parametrize("status", ["interrupted", "completed"])
def test_no_page_tells_of_an_end_while_the_run_goes_on(status: str, tmp_path: Path) -> None:
    leave(tmp_path, job(), status, checkpoint=7)
    endings = ("result.json", "report.html", "curves.png")
    for name in endings[1:]:
        (tmp_path / name).write_text("it failed")
    with JobFolder(tmp_path, job()) as again:
        finished = again.finished is not None
        assert [(tmp_path / name).exists() for name in endings] == [finished] * 3
    assert finished is (status == "completed")


def test_a_run_that_left_nothing_to_mix_is_begun_again_with_whatever_changed(tmp_path: Path) -> None:
    leave(tmp_path, job(("1",)), "failed")
    with JobFolder(tmp_path, job(("2",))) as folder:
        assert folder.finished is None
        assert folder.earlier is not None and folder.earlier.checkpoint is None


@pytest.mark.parametrize("status", [None, "failed", "interrupted"])
def test_an_unfinished_run_of_the_same_job_is_gone_on_with(tmp_path: Path, status: str | None) -> None:
    leave(tmp_path, job(), status, checkpoint=3)
    with JobFolder(tmp_path, job()) as folder:
        assert folder.finished is None
        assert folder.earlier is not None and folder.earlier.checkpoint == 3
        assert not (tmp_path / "result.json").exists()


def test_a_finished_run_of_the_same_job_stands(tmp_path: Path) -> None:
    leave(tmp_path, job(), "completed")
    with JobFolder(tmp_path, job()) as folder:
        assert folder.finished == {"status": "completed", "steps": 7, "metrics": {"accuracy": 0.5}}
    assert (tmp_path / "result.json").exists()


def test_more_workers_or_ranks_are_no_other_configuration(tmp_path: Path) -> None:
    more = {
        "teachers": [{"model": "a:b", "replicas": 3, "device": "cpu", "batch_size": 8}],
        "student": {"script": "s.py", "nnodes": "1:2", "nproc_per_node": 2, "max_restarts": 0},
        "checkpoint": {"every_steps": 5},
        "coordinator": {"heartbeat_ttl_s": 9.0},
    }
    assert differences(job(), job(**more)) == []
    exact = {"teachers": [{"model": "a:b", "batch_size": 8}]}
    assert differences(job(deterministic=True), job(deterministic=True, **exact)) == [
        "teachers[0].batch_size: 64 -> 8"  # fixed cuts are cut so
    ]
    leave(tmp_path, job(), checkpoint=3)
    JobFolder(tmp_path, job(**more)).close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"teachers": [{"model": "a:c"}]}, "teachers[0].model: a:b -> a:c"),
        ({"teachers": [{"model": "a:b", "weights": "w"}]}, "teachers[0].weights: not given -> w"),
        ({"teachers": [{"model": "a:b", "codec": "dense:fp16"}]}, "teachers[0].codec: dense -> dense:fp16"),
        ({"student": {"script": "t.py"}}, "student.script: s.py -> t.py"),
        ({"student": {"script": "s.py", "env": {"A": "1"}}}, "student.env.A: not given -> 1"),
        ({"on_poison": "skip"}, "on_poison: raise -> skip"),
        ({"prepare": {"script": "p.py"}}, "prepare.script: not given -> p.py"),
    ],
)
def test_what_decides_the_result_is_a_difference(changes: dict[str, Any], said: str) -> None:
    assert differences(job(), job(**changes)) == [said]


def test_a_fresh_beginning_keeps_the_earlier_run_and_touches_nothing_else(tmp_path: Path) -> None:
    leave(tmp_path, job(("1",)), "completed", checkpoint=7)
    (tmp_path / "mine.py").write_text("a person's own")
    for number in (1, 2):
        with JobFolder(tmp_path, job((str(number + 1),)), "fresh") as folder:
            assert folder.set_aside == tmp_path / f"earlier-{number}"
            assert folder.earlier is None and folder.last_checkpoint() is None
            assert list(read_events(folder.events_path)) == []
            folder.result({"status": "completed"})
    assert json.loads((tmp_path / "earlier-1" / "result.json").read_text())["steps"] == 7
    assert EarlierRun.read(tmp_path / "earlier-1").checkpoint == 7  # type: ignore[union-attr]
    assert (tmp_path / "mine.py").read_text() == "a person's own"


def test_extending_goes_on_with_a_finished_run_under_a_changed_job(tmp_path: Path) -> None:
    leave(tmp_path, job(("1",)), "completed", checkpoint=7)
    with JobFolder(tmp_path, job(("2",)), "extend") as folder:
        assert folder.finished is None
        assert folder.earlier is not None and folder.earlier.checkpoint == 7
    assert EarlierRun.read(tmp_path).job == job(("2",))  # type: ignore[union-attr]


@pytest.mark.parametrize("beginning", ["resume", "fresh", "extend"])
def test_another_jobs_folder_is_refused_however_one_begins(tmp_path: Path, beginning: Any) -> None:
    leave(tmp_path, job(name="first"))
    with pytest.raises(ConfigError, match="belongs to job 'first', this is job 'second'"):
        JobFolder(tmp_path, job(name="second"), beginning)


def opened(places: Path, of: JobConfig, beginning: Any = "resume") -> str:
    with open_default_folder(places, of, beginning) as folder:
        return folder.path.name


def test_default_folders_are_numbered(tmp_path: Path) -> None:
    assert opened(tmp_path, job(("1",))) == "toy"
    assert opened(tmp_path, job(("1",))) == "toy"  # it did not end
    leave(tmp_path / "toy", job(("1",)), "completed", checkpoint=7)
    assert opened(tmp_path, job(("1",))) == "toy-2"  # the first one did
    assert opened(tmp_path, job(("1",)), "fresh") == "toy-3"
    leave(tmp_path / "toy-3", job(("1",)), "interrupted", checkpoint=7)
    assert opened(tmp_path, job(("1",))) == "toy-3"
    assert opened(tmp_path, job(("2",)), "extend") == "toy-3"
    leave(tmp_path / "toy-3", job(("2",)), "interrupted")
    assert opened(tmp_path, job(("3",))) == "toy-4"  # another configuration's checkpoint is in the third
    with open_default_folder(tmp_path, job(("3",)), "resume"):
        assert opened(tmp_path, job(("3",))) == "toy-5"  # the fourth is held
