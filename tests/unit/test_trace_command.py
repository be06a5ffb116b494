"""What ``edldist trace`` refuses before it asks anybody."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edldist_launch.cli.watch.tracing import trace


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "61", "1e9", "soon"])
def test_a_time_that_makes_no_sense_is_refused(seconds: str) -> None:
    done = CliRunner().invoke(trace, ["--seconds", seconds, "--coordinator", "tcp://127.0.0.1:9"])
    assert done.exit_code == 2 and "--seconds" in done.output, done.output


@pytest.mark.parametrize("sample", ["0", "-3", "1.5", "1000001"])
def test_a_sample_that_is_no_number_of_tasks_is_refused(sample: str) -> None:
    done = CliRunner().invoke(trace, ["--sample", sample, "--coordinator", "tcp://127.0.0.1:9"])
    assert done.exit_code == 2 and "--sample" in done.output, done.output


def test_only_one_thing_says_which_job(tmp_path: Path) -> None:
    done = CliRunner().invoke(trace, [str(tmp_path), "--coordinator", "tcp://127.0.0.1:9"])
    assert done.exit_code == 2 and "give one of them" in done.output, done.output


def test_a_folder_without_a_job_is_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(trace, [str(tmp_path), "--output", str(tmp_path / "trace.json")])
    assert "no job writes there" in str(done.exception), done.output
    assert list(tmp_path.iterdir()) == []
