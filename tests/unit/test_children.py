"""What a job says reaches its processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import edldist.coordinator.server
from edldist.config import JobConfig
from edldist.coordinator.server import CoordinatorOptions
from edldist.environment import JobEnvironment
from edldist.teacher.model import pick_device
from edldist_launch.children import coordinator_command, student_environment, teacher_names
from edldist_launch.cli import cli


def job(*teachers: dict[str, Any], **settings: Any) -> JobConfig:
    named = [{"name": f"t{number}", "model": "a:b", **teacher} for number, teacher in enumerate(teachers)]
    return JobConfig.model_validate(
        {"name": "j", "teachers": named, "student": {"script": "s.py"}, **settings}
    )


def environment(config: JobConfig) -> JobEnvironment:
    return JobEnvironment.read(student_environment(config, "tcp://h:1", Path("/out")))


def test_the_coordinators_settings_reach_it_and_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[CoordinatorOptions] = []
    monkeypatch.setattr(
        edldist.coordinator.server, "run_coordinator", lambda options: seen.append(options) or 0
    )
    for settings in ({}, {"heartbeat_ttl_s": 20, "max_students_per_worker": 4}, {"heartbeat_ttl_s": 0.5}):
        config = job({}, coordinator=settings)
        command = coordinator_command(config.coordinator, "tcp://127.0.0.1:0", "127.0.0.1:0", None)
        assert CliRunner().invoke(cli, command[2:], standalone_mode=False).exception is None
    told = [(o.heartbeat_ttl_s, o.heartbeat_interval_s, o.max_students_per_worker) for o in seen]
    assert told == [(3.0, 1.0, 16), (20.0, 1.0, 4), (0.5, 0.5 / 3, 16)]
    assert environment(job({}, coordinator={"heartbeat_ttl_s": 20})).heartbeat_ttl_s == 20.0
    assert environment(job({})).heartbeat_ttl_s == 3.0


def test_deterministic_cuts_are_no_larger_than_any_teachers_batch() -> None:
    sizes = ({"batch_size": 64}, {"batch_size": 16}, {"batch_size": 32})
    assert environment(job(*sizes, deterministic=True)).task_size == 16
    assert environment(job(*sizes)).task_size is None


def test_automatic_workers_are_numbered_over_the_whole_job() -> None:
    config = job({"replicas": 2}, {"replicas": 1, "device": "cuda:7"}, {"replicas": 2, "device": "auto"})
    devices = {name: teacher.device for name, teacher in teacher_names(config).items()}
    assert devices == {
        "t0-0": "auto:0",
        "t0-1": "auto:1",
        "t1-0": "cuda:7",
        "t2-0": "auto:2",
        "t2-1": "auto:3",
    }


@pytest.mark.parametrize(
    ("accelerators", "picked"),
    [
        (4, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        (2, ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]),
        (0, ["cpu"] * 4),
    ],
)
def test_automatic_workers_spread_over_the_accelerators_there_are(
    monkeypatch: pytest.MonkeyPatch, accelerators: int, picked: list[str]
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: accelerators > 0)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: accelerators)
    assert [str(pick_device(f"auto:{number}")) for number in range(4)] == picked
    assert str(pick_device("auto")) == ("cuda" if accelerators else "cpu")
