"""What ``edldist trace`` refuses before it asks anybody."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edldist.wire.messages import MemberStatus, Scalar, Status
from edldist_launch.cli.watch.tracing import trace
from edldist_launch.view import traces
from tests.unit.command_line import invoke


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


@pytest.mark.parametrize("command", [("trace",), ("doctor", "--job", "--output")])
def test_a_job_that_has_ended_is_not_looked_for(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text(
        '{"t": 1, "event": "coordinator_started", "address": "tcp://127.0.0.1:1"}\n'
    )
    (tmp_path / "result.json").write_text('{"status": "completed"}')
    result = invoke(*command, str(tmp_path))
    said = f"the job of {tmp_path} has ended (completed): edldist report {tmp_path} says how it went"
    assert said in str(result.exception)


def test_a_folder_without_a_job_is_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(trace, [str(tmp_path), "--output", str(tmp_path / "trace.json")])
    assert "no job writes there" in str(done.exception), done.output
    assert list(tmp_path.iterdir()) == []


def member(role: str, samples_per_s: float | None, **stats: Scalar) -> MemberStatus:
    return MemberStatus(
        *("m", role, "big", "", "p", "here", 1, 1.0, 0.1, []),
        info={},
        stats=stats,
        samples_per_s=samples_per_s,
    )


@pytest.mark.parametrize(
    ("members", "sample"),
    [
        ([], 1),
        ([member("teacher", None, samples=100, tasks=10)], 1),
        ([member("teacher", 6400.0)], 1),
        ([member("teacher", 6400.0, samples=3200, tasks=100)], 1),
        ([member("teacher", 6401.0, samples=3200, tasks=100)], 2),
        ([member("teacher", 10.0, samples=8, tasks=1), member("teacher", 64e3, samples=320, tasks=10)], 10),
        ([member("teacher", 1e4, samples=0, tasks=0)], 1),
        ([member("student", 1e6, samples=1, tasks=1)], 1),
    ],
)
def test_as_many_tasks_are_followed_as_cost_little(
    members: list[MemberStatus], sample: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        def __init__(self, address: str) -> None:
            assert address == "tcp://there:7070"

        def query(self, since: int, timeout_s: float) -> Status:
            return Status("i", 1.0, members, [], 0)

        def close(self) -> None:
            pass

    monkeypatch.setattr(traces, "StatusClient", Client)
    assert traces.sample_for("tcp://there:7070") == sample
