"""What a job says reaches its processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import edldist.coordinator.running
from edldist.agreement import AgreementBounds
from edldist.config import JobConfig
from edldist.coordinator.options import CoordinatorOptions
from edldist.coordinator.scaling.scaling import Bounds
from edldist.environment import JobEnvironment, LabelMaker
from edldist.errors import ConfigError
from edldist.teacher.model.teacher import pick_device
from edldist_launch.cli import cli
from edldist_launch.job.run import run_job
from edldist_launch.job.workers import Workers
from edldist_launch.machine.room import LEAST_PROCESS_BYTES, check_room
from edldist_launch.node.student import run_student
from edldist_launch.plan.plan import Plan, Replicas


def job(*teachers: dict[str, Any], **settings: Any) -> JobConfig:
    named = [{"name": f"t{number}", "model": "a:b", **teacher} for number, teacher in enumerate(teachers)]
    return JobConfig.model_validate(
        {"name": "j", "teachers": named, "student": {"script": "s.py"}, **settings}
    )


def plan(config: JobConfig) -> Plan:
    return Plan(config, Path("/beside"), Path("/out"))


def environment(config: JobConfig) -> JobEnvironment:
    return JobEnvironment.read(plan(config).student_environment("tcp://h:1"))


def test_the_coordinators_settings_reach_it_and_the_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[CoordinatorOptions] = []
    monkeypatch.setattr(
        edldist.coordinator.running, "run_coordinator", lambda options: seen.append(options) or 0
    )
    for settings in ({}, {"heartbeat_ttl_s": 20, "max_students_per_worker": 4}, {"heartbeat_ttl_s": 0.5}):
        config = job({}, coordinator=settings)
        command = plan(config).coordinator_command("tcp://127.0.0.1:0", "127.0.0.1:0")
        assert CliRunner().invoke(cli, command[2:], standalone_mode=False).exception is None
    told = [(o.heartbeat_ttl_s, o.heartbeat_interval_s, o.max_students_per_worker) for o in seen]
    assert told == [(3.0, 1.0, 16), (20.0, 1.0, 4), (0.5, 0.5 / 3, 16)]
    assert [dict(each.scale) for each in seen] == [{"t0": Bounds(1, 1, 1, automatic=True)}] * 3
    assert environment(job({}, coordinator={"heartbeat_ttl_s": 20})).heartbeat_ttl_s == 20.0
    assert environment(job({})).heartbeat_ttl_s == 3.0


@pytest.mark.parametrize(
    ("weights", "place"),
    [
        ("follow:{output}/w", "follow:/out/w"),
        ("follow:{output}", "follow:/out"),
        ("follow:/elsewhere/{output}/w", "follow:/elsewhere/{output}/w"),
        ("{output}/w.pt", "{output}/w.pt"),
    ],
)
def test_weights_may_be_followed_in_the_jobs_own_folder(weights: str, place: str) -> None:
    config = job({"weights": weights})
    assert f"--weights {place} --" in " ".join(
        plan(config).teacher_command(config.teachers[0], "w", "tcp://h:1")
    )
    if place == "follow:/out/w":
        bucket = plan(config).teacher_command(config.teachers[0], "w", "tcp://h:1", output="s3://bucket/run/")
        assert "follow:s3://bucket/run/w" in bucket


def test_what_counts_as_one_teacher_reaches_the_ranks() -> None:
    assert environment(job({})).agreement == AgreementBounds()
    assert environment(job({}, agreement="off")).agreement is None
    bounds = {"max_nats": 0.5, "max_relative": 1e-3, "every_s": 7}
    assert environment(job({}, agreement=bounds)).agreement == AgreementBounds(0.5, 1e-3, 7.0)


def test_the_coordinator_scales_every_group_within_its_bounds() -> None:
    planned = {"replicas": {"min": 1, "max": 8, "start": 5}}
    made = plan(job({"replicas": {"min": 0, "max": 8}}, {"replicas": 3}, planned))
    command = made.coordinator_command("tcp://127.0.0.1:0", "127.0.0.1:0")
    given = [command[at + 1] for at, word in enumerate(command) if word == "--scale"]
    assert given == ["t0=0:8", "t1=3:3", "t2=1:8:5"]
    for text, role in zip(given, made.roles[1:4], strict=True):
        bounds, replicas = Bounds.parse(text.partition("=")[2]), role.replicas
        assert (bounds.least, bounds.initial, bounds.most) == (replicas.min, replicas.initial, replicas.max)


def test_deterministic_cuts_are_no_larger_than_any_teachers_batch() -> None:
    sizes = ({"batch_size": 64}, {"batch_size": 16}, {"batch_size": 32})
    assert environment(job(*sizes, deterministic=True)).task_size == 16
    assert environment(job(*sizes)).task_size is None


@pytest.mark.parametrize("extend", [False, True])
def test_a_run_that_extends_says_so_to_its_student_nodes_and_their_ranks(
    extend: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def fake(**settings: Any) -> int:
        seen.append(settings["extend"])
        return 0

    monkeypatch.setattr("edldist_launch.node.student.run_student", fake)
    monkeypatch.setattr("edldist_launch.cli.roles.student.begin", lambda prefix: None)
    monkeypatch.setenv("PYTHONPATH", "")  # which the command changes
    made = Plan(job({}), tmp_path, tmp_path, extend=extend)
    variables = made.student_environment("tcp://h:1")
    assert JobEnvironment.read(variables).extend is extend
    command = made.student_command("tcp://h:1")[2:]
    assert CliRunner().invoke(cli, command, env=variables, standalone_mode=False).return_value == 0
    assert seen == [extend]


def test_automatic_workers_are_numbered_over_the_whole_job() -> None:
    config = job({"replicas": 2}, {"replicas": 1, "device": "cuda:7"}, {"replicas": 2, "device": "auto"})
    workers = Workers(config)
    assert {name: workers[name].device for name in workers.names} == {
        "t0-0": "auto:0",
        "t0-1": "auto:1",
        "t1-0": "cuda:7",
        "t2-0": "auto:2",
        "t2-1": "auto:3",
    }


def test_workers_in_front_of_an_engine_take_no_accelerator() -> None:
    workers = Workers(job({"model": "vllm:http://h:8000", "replicas": 2}, {"replicas": 1}))
    assert [workers[name].device for name in workers.names] == ["cpu", "cpu", "auto:0"]


def test_a_worker_takes_the_lowest_name_and_device_that_are_free() -> None:
    workers = Workers(job({"replicas": 3}, {"replicas": 1}))
    workers.remove("t0-1")
    assert workers.add("t1", 2) == ["t1-1", "t1-2"]
    assert workers.add("t0") == ["t0-1"]
    assert (workers.of("t0"), len(workers)) == (["t0-0", "t0-2", "t0-1"], 6)
    assert sorted(workers[name].device for name in workers.names) == [f"auto:{k}" for k in range(6)]
    assert (workers["t1-1"].device, workers["t0-1"].device) == ("auto:1", "auto:5")


def test_a_plan_has_the_roles_of_a_job_in_the_order_in_which_they_are_needed() -> None:
    config = job(
        {"replicas": {"min": 0, "max": 8}, "env": {"A": "1"}, "resources": {"gpus": 1}},
        {"replicas": 3},
        prepare={"script": "p.py"},
        student={"script": "s.py", "nnodes": "1:4", "resources": {"cpus": 8}},
    )
    prepare, coordinator, t0, t1, student = plan(config).roles
    assert (prepare.kind, coordinator.kind, t0.kind, student.kind) == (
        "prepare",
        "coordinator",
        "teacher",
        "student",
    )
    assert (t0.name, dict(t0.environment), t0.resources.gpus) == ("t0", {"A": "1"}, 1)
    bounds = [role.replicas for role in (t0, t1, student)]
    assert bounds == [Replicas(0, 1, 8), Replicas(3, 3, 3), Replicas(1, 4, 4)]
    assert student.resources.cpus == 8


@pytest.mark.parametrize(
    ("role", "wanted", "says"),
    [
        ("t0", 9, "t0=9: replicas of teacher t0 allows 0 to 8"),
        (
            "t1",
            4,
            "t1=4: replicas of teacher t1 allows 3 to 3; a range in the job file, as in replicas:",
        ),
        (
            "student",
            5,
            "student=5: student.nnodes allows 1 to 4; a range in the job file, as in nnodes:",
        ),
        ("coordinator", 2, "a job has one coordinator"),
        ("t2", 1, "job j has no role `t2`: it has coordinator, t0, t1, student"),
    ],
)
def test_a_number_that_a_role_may_not_have_is_refused(role: str, wanted: int, says: str) -> None:
    student = {"script": "s.py", "nnodes": "1:4"}
    made = plan(job({"replicas": {"min": 0, "max": 8}}, {"replicas": 3}, student=student))
    with pytest.raises(ConfigError) as caught:
        made.check_scale(role, wanted)
    assert says in str(caught.value)
    made.check_scale("t0", 0)
    made.check_scale("student", 4)


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
    processes = plan(config).processes
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


# --- labels that are kept ---------------------------------------------------------------------------------


def test_where_labels_are_kept_reaches_the_ranks_with_who_made_them() -> None:
    config = job(
        {"name": "big", "model": "my:teacher", "codec": "topk:64", "version": "7"},
        {"name": "small", "model": "hf:models/small"},
        store={"path": "/kept", "memory": "2GiB", "data": "images", "read_only": True},
    )
    store = environment(config).store
    assert store is not None and (store.path, store.memory_mib, store.disk_mib) == ("/kept", 2048, 100 << 10)
    assert (store.preprocessing, store.data, store.read_only, store.only) == ("", "images", True, False)
    assert store.teachers == {
        "big": LabelMaker("my:teacher", "topk:64", "7"),
        "small": LabelMaker("", "dense", ""),  # its workers name it by the class that the folder holds
    }
    assert environment(job({"model": "my:teacher"})).store is None


def test_a_job_whose_labels_are_all_kept_starts_no_teachers() -> None:
    config = job({"name": "big", "model": "my:teacher", "replicas": 3}, store={"path": "/kept", "only": True})
    made = plan(config)
    assert [role.kind for role in made.roles] == ["coordinator", "student"]
    assert len(made.processes) == 1, "the ranks alone"
    assert "--scale" not in made.coordinator_command("tcp://h:1", "h:2") and len(Workers(config)) == 0
    store = environment(config).store
    assert store is not None and store.only and list(store.teachers) == ["big"]
