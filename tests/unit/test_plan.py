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
from edldist.errors import ConfigError
from edldist.teacher.model.teacher import pick_device
from edldist_launch.cli import cli
from edldist_launch.job.processes import (
    coordinator_command,
    processes_of,
    student_environment,
    teacher_names,
)
from edldist_launch.job.run import run_job
from edldist_launch.machine.room import LEAST_PROCESS_BYTES, check_room
from edldist_launch.node.student import run_student


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


def test_a_job_that_cannot_fit_into_this_machine_is_refused_with_what_asks_for_it() -> None:
    student = {"script": "s.py", "nproc_per_node": 4, "nnodes": "1:2"}
    config = job({"replicas": 3}, {"replicas": {"min": 2, "max": 900}}, student=student)
    processes = processes_of(config)
    assert sum(processes.values()) == 3 + 2 + 2 * 4
    check_room(processes, 13 * LEAST_PROCESS_BYTES)
    with pytest.raises(ConfigError) as caught:
        check_room(processes, 12 * LEAST_PROCESS_BYTES)
    for part in (
        "13 processes",
        "3 of teachers[0].replicas",
        "8 of student (nnodes: 1:2, nproc_per_node: 4)",
    ):
        assert part in str(caught.value)
    assert "Start 12 at most here" in str(caught.value)


def test_nothing_begins_of_a_job_or_a_node_without_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edldist_launch.machine.room.memory_bytes", lambda: 100 * LEAST_PROCESS_BYTES)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "student.py").touch()
    (tmp_path / "job.yaml").write_text(
        "name: crowd\nteachers: [{model: m:f}]\nstudent: {script: student.py, nproc_per_node: 200}\n"
    )
    with pytest.raises(ConfigError, match="no room for 201 processes"):
        run_job(tmp_path / "job.yaml", (), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="200 of --nproc-per-node"):
        run_student("tcp://127.0.0.1:1", "student.py", (), nproc_per_node=200)
