"""What ``edldist`` says of a tuning that runs: its trials are many jobs in one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from edldist.config import load_job
from edldist.errors import ConfigError
from edldist_launch.contract.backend import JobState, ProcessState, RoleState
from edldist_launch.contract.wishes import read_wishes
from edldist_launch.local.backend import LocalBackend
from edldist_launch.local.logs import read_logs
from edldist_launch.local.placement import Placement
from edldist_launch.plan.plan import Plan
from edldist_launch.record.trials import process_of_trial, trial_folder, trial_folders
from edldist_launch.tune.tuning import TRIALS_NODES
from edldist_launch.view.logs import logs_of
from edldist_launch.view.placed import not_joined

JOB = """
name: toy
teachers: [{model: 'a:b', replicas: {min: 1, max: 3}}]
student: {script: s.py}
"""


@pytest.fixture
def tuning(tmp_path: Path) -> LocalBackend:
    """Of a tuning that this very process runs, with two trials under way."""
    (tmp_path / "job.yaml").write_text(JOB)
    nodes = tuple(
        ProcessState(process_of_trial(number, "student-0"), str(number), "running") for number in (7, 12)
    )
    roles = (RoleState("teacher", 1, ()), RoleState("student", 2, nodes, fixed=TRIALS_NODES))
    Placement(tmp_path, "toy", lambda *said: pytest.fail(str(said))).tell(
        JobState("toy", "running", "tcp://127.0.0.1:1", roles=roles)
    )
    for path, said in (
        ("logs/coordinator-0.log", "here"),
        (f"{trial_folder(12)}/logs/student-0.log", "late"),
        (f"{trial_folder(7)}/logs/student-0.log", "early"),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{said}\n")
    return LocalBackend(tmp_path)


def test_the_nodes_of_its_trials_are_not_scaled_and_nobody_waits_for_it(
    tuning: LocalBackend, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="student cannot be scaled: each trial of a tuning has the nodes"):
        tuning.scale({"student": 1})
    with pytest.raises(ConfigError, match="student cannot be scaled"):
        tuning.scale({"teacher": 2, "student": None})
    assert read_wishes(tmp_path) == {}, "all numbers, or none"


def test_its_trials_lines_say_whose_they_are(tuning: LocalBackend) -> None:
    trials = ["trial-7/student-0: early", "trial-12/student-0: late"]
    assert list(tuning.logs()) == ["coordinator: here", *trials]
    assert list(tuning.logs("student")) == trials
    assert list(logs_of(tuning, ["trial-7"], False)) == trials[:1]
    assert list(logs_of(tuning, ["trial-12/student-0"], False)) == trials[1:]
    with pytest.raises(ConfigError, match="no role `trial-1`"):
        logs_of(tuning, ["trial-1"], False)


def test_processes_of_two_trials_are_told_apart(tuning: LocalBackend) -> None:
    lines = not_joined(tuning.state(), [])
    assert [line.partition(" ")[0] for line in lines if "student" in line] == [
        "trial-7/student-0",
        "trial-12/student-0",
    ]


def test_other_folders_that_somebody_calls_trials_are_none(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "trials" / "mine" / "logs").mkdir(parents=True)
    (tmp_path / "trials" / "mine" / "logs" / "student-0.log").write_text("not of the job\n")
    roles = Plan(load_job(tmp_path / "job.yaml"), tmp_path, tmp_path).roles
    assert trial_folders(tmp_path) == [] and list(read_logs(tmp_path, roles)) == []
