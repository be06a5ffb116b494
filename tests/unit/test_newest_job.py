"""Which job is shown to somebody who names none: one that runs, a coordinator by hand, one that has ended."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import edldist_launch.cli.options.jobs
import edldist_launch.job.found
import edldist_launch.view.status
from edldist.address import Address
from edldist.errors import ConfigError, LaunchError
from edldist.wire.messages import Status
from edldist_launch.cli import cli
from edldist_launch.contract.backend import JobState, Phase
from edldist_launch.contract.submission import Submission
from edldist_launch.job.found import newest_job

STATUS = Status(incarnation="by-hand", uptime_s=65.0, members=[], records=[], seq=0)


class Engine:
    """Knows how some jobs are; nobody tells of the others."""

    def __init__(self, phases: dict[str, Phase], output: Path) -> None:
        self._phases = phases
        self._job = output.name

    def state(self) -> JobState:
        if self._job not in self._phases:
            raise LaunchError(f"{self._job}: Unable to contact slurm controller")
        return JobState(self._job, self._phases[self._job])


@pytest.fixture
def phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Phase]:
    """How the jobs in ./out are, by name; of those that are in there."""
    known: dict[str, Phase] = {}
    monkeypatch.chdir(tmp_path)
    for module in (edldist_launch.job.found, edldist_launch.job.engines):
        monkeypatch.setattr(module, "backend_of", lambda submission, output: Engine(known, output))
    for name in ("EDLDIST_COORDINATOR", "EDLDIST_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    return known


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where a coordinator would be; nobody listens yet."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", made.getsockname()[1]).url
        monkeypatch.setattr(edldist_launch.cli.options.jobs, "COORDINATOR_BY_HAND", address)
        monkeypatch.setattr(edldist_launch.cli.options.jobs, "ANSWER_S", 0.05)
        yield made


def job(name: str, submitted_at: float) -> None:
    folder = Path("out") / name
    folder.mkdir(parents=True)
    Submission("slurm", name, submitted_at).write(folder)
    (folder / "result.json").write_text(json.dumps({"status": "failed", "job": name, "reason": "no weights"}))


def shown(*more: str) -> tuple[str, str]:
    done = CliRunner().invoke(cli, ["status", *more], standalone_mode=False, catch_exceptions=False)
    return done.stdout, done.stderr


def test_after_the_end_status_shows_the_result_of_the_newest_job(
    phases: dict[str, Phase], port: socket.socket
) -> None:
    job("old", 1.0)
    job("new", 2.0)
    phases |= {"old": "failed", "new": "failed"}
    out, told = shown()
    assert out.endswith("\nerror: no weights\n") and told == "job new of out/new\n"
    assert json.loads(shown("--json")[0])["job"] == "new"
    assert shown("--watch")[0].endswith("\nerror: no weights\n"), "it has ended"


def test_where_there_is_no_job_at_all_status_says_so_as_stop_does(
    phases: dict[str, Phase], port: socket.socket
) -> None:
    words = r"^no job runs here \(there is no job in out\): name its folder by --output DIR"
    with pytest.raises(ConfigError, match=f"{words}$"):
        CliRunner().invoke(cli, ["stop"], standalone_mode=False, catch_exceptions=False)
    with pytest.raises(ConfigError, match=f"{words}, or its coordinator by --coordinator URL$"):
        shown()
    port.listen()  # but is no coordinator
    with pytest.raises(ConfigError, match=words):
        shown()


def test_a_coordinator_that_somebody_started_by_hand_is_shown_before_a_job_that_has_ended(
    phases: dict[str, Phase], port: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        def __init__(self, address: str) -> None:
            pass

        def query(self, since: int, timeout_s: float) -> Status:
            return STATUS

        def close(self) -> None:
            pass

    monkeypatch.setattr("edldist.wire.query.StatusClient", Client)
    monkeypatch.setattr(edldist_launch.view.status, "StatusClient", Client)
    port.listen()
    job("old", 1.0)
    phases["old"] = "failed"
    assert json.loads(shown("--json")[0])["incarnation"] == "by-hand"


def test_a_job_whose_engine_is_silent_is_not_passed_over_for_one_that_ended_before_it(
    phases: dict[str, Phase],
) -> None:
    job("old", 1.0)
    job("silent", 2.0)
    phases["old"] = "failed"
    with pytest.raises(ConfigError, match="out/silent: silent: Unable to contact .*have ended: out/old"):
        newest_job(ended_too=True)
    job("new", 3.0)
    phases["new"] = "succeeded"
    assert newest_job(ended_too=True).submission.job == "new"
    phases["old"] = "running"
    assert newest_job(ended_too=True).submission.job == "old"
