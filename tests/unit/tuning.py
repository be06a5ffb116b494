"""A small space and a job to tune, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edldist.config import JobConfig
from edldist_launch.tune.search import Search
from edldist_launch.tune.settings import Settings
from edldist_launch.tune.space import Space
from edldist_launch.tune.study import Study

__all__ = ["JOB", "SPACE", "ended", "job", "space", "study"]

JOB: dict[str, Any] = {
    "name": "toy",
    "teachers": [{"model": "a.b:c", "replicas": 2}],
    "student": {"script": "s.py", "args": ["--lr", "0.01", "--mode", "a", "--seed=3", "--lr", "0.02"]},
    "checkpoint": {"every_steps": 50},
}
SPACE: dict[str, Any] = {
    "keys": {
        "--lr": {"low": 0.001, "high": 0.1, "log": True},
        "--mode": {"choices": ["a", "b", "c"]},
        "checkpoint.every_steps": {"low": 10, "high": 100, "whole": True},
    },
    "objective": {"metric": "accuracy", "goal": "max"},
    "constraints": [{"metric": "cost", "at_most": 1.1}],
    "at_a_time": 3,
    "window": 4,
    "seed": "--seed",
}


def job(**changes: Any) -> JobConfig:
    """The job, with sections of it replaced."""
    return JobConfig.model_validate({**JOB, **changes})


def space(**changes: Any) -> Space:
    """The space, with sections of it replaced."""
    return Space.model_validate({**SPACE, **changes})


def study(candidates: int = 8, search: Search | None = None, **changes: Any) -> Study:
    """A study of them that has no trials yet."""
    over = space(**changes)
    settings = Settings(over, job())
    return Study(over, settings.base, candidates, seed_of=settings.seed, search=search)


def ended(tuning: Study, number: int, **metrics: float) -> None:
    """A trial reports some figures and comes to its end."""
    tuning.ended(number, metrics, dict[str, object](metrics), steps=10)


def figures(values: Mapping[str, Any]) -> dict[str, float]:
    """What settings come to: best at a learning rate of 0.03 in mode b; cost grows with the rate."""
    import math

    off = math.log10(values["--lr"] / 0.03)
    accuracy = 0.8 - 0.1 * off**2 + (0.05 if values["--mode"] == "b" else 0.0)
    return {"accuracy": accuracy, "cost": 10 * (1 + 0.1 * math.log10(values["--lr"] / 0.02))}
