"""The settings of trials: read from the job, and written into it."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from edldist.config import load_job
from edldist.errors import ConfigError
from edldist.yamltext import dump_yaml
from edldist_launch.tune.settings import Settings
from tests.unit.tuning import JOB, job, space

LR = {"low": 0.001, "high": 0.1}


def test_the_control_has_the_jobs_own_settings() -> None:
    settings = Settings(space(), job())
    assert settings.base == {"--lr": 0.02, "--mode": "a", "checkpoint.every_steps": 50}
    assert [settings.seed(window) for window in (0, 2)] == [3, 5]
    assert Settings(space(seed=None), job()).seed(7) is None


def test_a_trials_job_has_its_settings_a_name_of_its_own_and_all_else_as_it_was() -> None:
    settings = Settings(space(), job())
    trial = settings.job(7, {"--lr": 0.05, "--mode": "c", "checkpoint.every_steps": 20}, 9)
    assert trial.student.args == ["--lr", "0.01", "--mode", "c", "--seed=9", "--lr", "0.05"]
    assert trial.checkpoint.every_steps == 20
    assert trial.name == "toy-0007"
    assert trial.teachers == job().teachers
    assert len(Settings(space(), job(name="x" * 100)).job(3, {}, None).name) == 100


def test_the_command_for_some_settings_makes_that_job(tmp_path: Any) -> None:
    settings = Settings(space(), job(student={**JOB["student"], "env": {"A": "b c"}}))
    values = {"--lr": 0.05, "--mode": "it's", "checkpoint.every_steps": 20}
    path = tmp_path / "job.yaml"
    path.write_text(dump_yaml(settings.job(0, {}, None).model_dump()))
    edldist, run, file, *options = shlex.split(settings.command([str(path)], values))
    assert (edldist, run, file) == ("edldist", "run", str(path))
    made = load_job(path, options[1::2])
    assert made.student.args == ["--lr", "0.01", "--mode", "it's", "--seed=3", "--lr", "0.05"]
    assert made.checkpoint.every_steps == 20


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"--l": LR}, "keys.--l: student.args has no --l with a value; did you mean `--lr`?"),
        ({"--warmup": LR}, "student.args has no --warmup with a value. Give it there"),
        ({"learning_rate": LR}, "the job has no `learning_rate` there"),
        ({"checkpoint.every_step": LR}, "no `every_step` there; did you mean `every_steps`?"),
        ({"student.env.RATE": LR}, "the job has no `RATE` there. It has nothing"),
        ({"student.args.9": LR}, "the job has no `9` there"),
        ({"teachers.0.codec": {"choices": ["dense", "int8"]}}, "the teachers serve all trials at once"),
        ({"teachers.0.kwargs.depth": LR}, "the teachers serve all trials at once"),
        ({"coordinator.heartbeat_ttl_s": LR}, "it belongs to the fleet, which all trials share"),
        ({"name": {"choices": ["a", "b"]}}, "every trial has a name of its own"),
        ({"prepare": {"choices": ["a", "b"]}}, "the preparation runs once"),
        ({"--lr": {"low": 0.5, "high": 1}}, "the job's own value 0.02, which the control has, is not a numb"),
        ({"--mode": {"choices": ["x", "y"]}}, "the job's own value 'a', which the control has, is not one"),
        (
            {"--mode": {"low": 1, "high": 2}},
            "the job's own value 'a', which the control has, is not a number",
        ),
        (
            {"checkpoint.every_steps": {"low": 0, "high": 99, "whole": True}},
            "the job could not have the value 0: checkpoint.every_steps: 0 is not allowed",
        ),
        ({"checkpoint.every_steps": {"low": 1, "high": 99.5}}, "the job could not have the value"),
        ({"--mode": {"choices": ["a", None]}}, "an argument of the script cannot have the value None"),
        ({"--mode": {"choices": ["a", ["b"]]}}, "cannot have the value ['b']: give it texts or numbers"),
        ({"--mode": {"choices": ["a", True]}}, "quote it in the job file to pass it as text"),
    ],
)
def test_a_key_that_no_trial_can_have_of_its_own_is_refused(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Settings(space(keys=keys), job())
    assert says in str(refused.value)


def test_a_seed_that_is_no_whole_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="seed: --mode is 'a' in the job"):
        Settings(space(keys={"--lr": LR}, seed="--mode"), job())
