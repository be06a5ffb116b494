"""The output folder of a job."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edldist.config import JobConfig, load_job
from edldist.errors import ConfigError
from edldist_launch.record import folder as folders
from edldist_launch.record.eventfile import read_events
from edldist_launch.record.folder import FolderHeldError, JobFolder, open_record


def job(name: str = "digits") -> JobConfig:
    return JobConfig.model_validate(
        {"name": name, "teachers": [{"model": "a:b"}], "student": {"script": "s.py"}}
    )


def test_a_new_folder_holds_the_resolved_job(tmp_path: Path) -> None:
    with JobFolder(tmp_path / "new" / "out", job()) as folder:
        assert load_job(folder.path / "job.yaml") == job()
        assert (folder.path / "checkpoints").is_dir()
        assert folder.log_path("teacher", "t-0") == folder.path / "logs" / "teacher-t-0.log"
        assert folder.log_path("prepare") == folder.path / "logs" / "prepare.log"


def test_a_coordinator_waits_for_the_one_before_it_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = open_record(tmp_path, job())
    looks = []

    def look_again(pause_s: float) -> None:
        looks.append(pause_s)
        if len(looks) == 3:
            former.close()

    monkeypatch.setattr(folders.time, "sleep", look_again)
    with open_record(tmp_path, job()):
        assert len(looks) == 3
        monkeypatch.setattr(folders, "HANDOVER_S", -1.0)
        with pytest.raises(FolderHeldError, match="another run"):
            open_record(tmp_path, job())


def test_a_second_run_appends_events_and_drops_the_old_result(tmp_path: Path) -> None:
    with JobFolder(tmp_path, job()) as folder:
        folder.event({"t": 1.0, "event": "one"})
        folder.result({"status": "failed"})
    with JobFolder(tmp_path, job()) as folder:
        assert not (tmp_path / "result.json").exists()
        folder.event({"t": 2.0, "event": "two"})
        folder.result({"status": "completed"})
    assert [event["event"] for event in read_events(tmp_path / "events.jsonl")] == ["one", "two"]
    assert json.loads((tmp_path / "result.json").read_text()) == {"status": "completed"}
    assert not list(tmp_path.glob(".*.new"))


def test_a_half_written_event_spoils_no_other(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"t": 1, "event": "one"}\n{"t": 2, "ev')
    with JobFolder(tmp_path, job()) as folder:
        folder.event({"t": 3, "event": "three"})
    assert [event["t"] for event in read_events(tmp_path / "events.jsonl")] == [1, 3]


def test_numbers_that_json_cannot_say_become_null(tmp_path: Path) -> None:
    with JobFolder(tmp_path, job()) as folder:
        folder.event({"t": 1, "event": "report", "loss": float("nan")})
        folder.result({"metrics": {"loss": float("inf"), "n": 1}})
    assert "NaN" not in (tmp_path / "events.jsonl").read_text()
    assert json.loads((tmp_path / "result.json").read_text())["metrics"] == {"loss": None, "n": 1}


def test_the_folder_of_another_job_is_refused(tmp_path: Path) -> None:
    JobFolder(tmp_path, job("first")).close()
    with pytest.raises(ConfigError, match="belongs to job 'first', this is job 'second'"):
        JobFolder(tmp_path, job("second"))
    JobFolder(tmp_path, job("first")).close()


def test_a_folder_with_an_unreadable_job_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("nonsense: 1")
    with pytest.raises(ConfigError, match="(?s)choose another --output.*nonsense: unknown key"):
        JobFolder(tmp_path, job())


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with (
        JobFolder(tmp_path, job()),
        pytest.raises(ConfigError, match=rf"another run \(pid {os.getpid()}\)"),
    ):
        JobFolder(tmp_path, job())
    JobFolder(tmp_path, job()).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the output folder .*file/out"):
        JobFolder(tmp_path / "file" / "out", job())
