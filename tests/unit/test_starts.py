"""Starts under one name, counted in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

import edldist.teacher.worker
from edldist_launch.cli.group import cli
from edldist_launch.process.starts import count_start


def test_starts_are_counted_from_0_whatever_lies_there(tmp_path: Path) -> None:
    file = tmp_path / "starts"
    assert [count_start(file) for _ in range(3)] == [0, 1, 2]
    file.write_text("what?")
    assert [count_start(file) for _ in range(2)] == [0, 1]
    file.write_text("-3")
    assert [count_start(file) for _ in range(2)] == [0, 1]


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert count_start(tmp_path / "nowhere" / "starts") == 0
    assert any("cannot count this start in" in message for message in caplog.messages)


def test_each_start_of_a_worker_is_a_later_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[int] = []

    def run(options: edldist.teacher.worker.WorkerOptions) -> int:
        attempts.append(options.attempt)
        return 0

    monkeypatch.setattr(edldist.teacher.worker, "run_worker", run)
    monkeypatch.setattr("edldist_launch.cli.roles.teacher.begin", lambda prefix: None)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = ["teacher", "--coordinator", "tcp://127.0.0.1:1", "--model", "m:t", "--id", "pod-1"]
    counted = [*words, "--attempt-file", str(tmp_path / "starts")]
    for _ in range(2):
        assert CliRunner().invoke(cli, counted, standalone_mode=False).return_value == 0
    assert CliRunner().invoke(cli, [*words, "--attempt", "7"], standalone_mode=False).return_value == 0
    assert attempts == [0, 1, 7]
