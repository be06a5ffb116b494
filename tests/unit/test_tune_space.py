"""The space file of a tuning: what it may say, and what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edldist.errors import ConfigError
from edldist.yamltext import dump_yaml
from edldist_launch.tune.space import Space, load_space, tuning_digest
from tests.unit.tuning import SPACE, job, space


def load(tmp_path: Path, **changes: Any) -> Space:
    path = tmp_path / "space.yaml"
    path.write_text(dump_yaml({**SPACE, **changes}))
    return load_space(path)


def test_a_space_is_read_with_its_defaults(tmp_path: Path) -> None:
    found = load(tmp_path)
    assert found == space()
    assert (found.controls, found.steps, found.stop) == (1, None, True)
    assert found.metrics == ["accuracy", "cost"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"keys": {}}, "keys: {} is not allowed; it must be a mapping from keys of the job file"),
        ({"keys": {"--lr": 0.1}}, "keys.--lr: 0.1 is not allowed; it must be {low: .., high: ..}"),
        ({"keys": {"--lr": {"low": 1}}}, "keys.--lr.high: missing; it must be a number above `low`"),
        ({"keys": {"--lr": {"low": 1, "high": 1}}}, "keys.--lr: low 1 is not below high 1: nothing lies"),
        ({"keys": {"--lr": {"low": 2, "high": 1}}}, "keys.--lr: low 2 is not below high 1: nothing lies"),
        ({"keys": {"--lr": {"low": 0, "high": 1, "log": True}}}, "keys.--lr: log: true needs low above 0"),
        ({"keys": {"--n": {"low": 0.5, "high": 2, "whole": True}}}, "keys.--n: whole: true needs whole"),
        ({"keys": {"--n": {"low": 1, "high": 1e300, "whole": True}}}, "bounds of at most 9,007,199,254,740,"),
        ({"keys": {"--lr": {"low": "x", "high": 1}}}, "keys.--lr.low: 'x' is not allowed; it must be a num"),
        ({"keys": {"--lr": {"low": 0, "high": float("inf")}}}, "keys.--lr.high: inf is not allowed"),
        ({"keys": {"--lr": {"low": 0, "high": 1, "lgo": True}}}, "keys.--lr.lgo: unknown key (value True)"),
        ({"keys": {"--m": {"choices": []}}}, "keys.--m.choices: [] is not allowed: 0 of them leave nothing"),
        ({"keys": {"--m": {"choices": [1]}}}, "1 of them leave nothing to choose"),
        ({"keys": {"--m": {"choices": [1, 1]}}}, "a value is given twice"),
        ({"objective": {"metric": "a", "goal": "up"}}, "objective.goal: 'up' is not allowed; it must be max"),
        ({"objective": {"goal": "max"}}, "objective.metric: missing"),
        ({"constraints": [{"metric": "a"}]}, "needs at_least or at_most: give one of them"),
        ({"constraints": [{"metric": "a", "at_least": 0.9, "at_most": 1}]}, "needs at_least or at_most"),
        ({"constraints": [{"metric": "a", "at_most": 0}]}, "constraints[0].at_most: 0 is not allowed"),
        ({"at_a_time": 0}, "at_a_time: 0 is not allowed; it must be a whole number from 1 to 256"),
        ({"window": 0}, "window: 0 is not allowed"),
        ({"steps": 0}, "steps: 0 is not allowed"),
        ({"seed": "--lr"}, "--lr is tuned, and is the seed of the windows"),
        ({"windows": 3}, "windows: unknown key (value 3); did you mean `window`?"),
    ],
)
def test_what_a_space_may_not_say_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, **changes)
    assert says in str(refused.value)
    assert str(refused.value).startswith(f"{tmp_path / 'space.yaml'}: 1 problem\n")


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such space file"):
        load_space(tmp_path / "nowhere.yaml")
    (tmp_path / "list.yaml").write_text("[1]")
    with pytest.raises(ConfigError, match="this one holds a list"):
        load_space(tmp_path / "list.yaml")


def test_a_digest_tells_spaces_and_jobs_apart_but_not_how_many_trials_run_at_a_time() -> None:
    digest = tuning_digest(space(), job())
    assert digest == tuning_digest(space(at_a_time=9), job(checkpoint={"every_steps": 10}))
    student = {"script": "s.py", "args": ["--lr", "0.5"]}
    others = [tuning_digest(space(window=5), job()), tuning_digest(space(), job(student=student))]
    assert len({digest, *others}) == 3


def test_a_constraint_tells_how_far_a_ratio_is_beyond_it() -> None:
    found = space(constraints=[{"metric": "a", "at_most": 1.1}, {"metric": "b", "at_least": 0.9}])
    assert [each.excess(1.2) for each in found.constraints] == pytest.approx([0.1, -0.3])
    assert found.holds({"a": 1.1, "b": 0.9})
    assert not found.holds({"a": 1.1, "b": 0.8})
    assert not found.holds({"a": 1.1}), "a metric that is missing holds nothing"


def test_a_gain_is_better_in_the_direction_of_the_goal() -> None:
    assert space().gain(1.25) == pytest.approx(0.25)
    assert space(objective={"metric": "loss", "goal": "min"}).gain(0.75) == pytest.approx(0.25)
