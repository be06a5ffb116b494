"""The digits job on six hosts: all that Slurm does to jobs happens to it, and every sample counts once.

One job, one story: starting Slurm and the job costs more than each of its chapters.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from edldist_launch.contract.backend import JobState, ProcessState
from edldist_launch.slurm.attempts import Attempts
from edldist_launch.slurm.backend import SlurmBackend
from edldist_launch.slurm.layout import Layout
from examples.digits.data import splits
from tests.clusters.slurm.cluster import Cluster
from tests.fault.harness import ROOT, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

EPOCHS = 20
CPUS = {"teacher": 3, "student": 4}
JOB = f"""
name: digits
prepare: {{script: {ROOT}/tests/clusters/slurm/paced.py, args: [OUT/teacher.safetensors]}}
teachers:
  - name: teacher
    model: tests.clusters.slurm.paced:teacher
    kwargs: {{hurry: OUT/hurry}}
    weights: OUT/teacher.safetensors
    replicas: {{min: 1, max: 4}}
    resources: {{cpus: {CPUS["teacher"]}}}
student:
  script: examples/digits/student.py
  args: [--epochs, {EPOCHS}, --batch-size, 64]
  nnodes: "1:2"
  resources: {{cpus: {CPUS["student"]}}}
checkpoint: {{every_steps: 10}}
coordinator: {{heartbeat_ttl_s: 8}}  # ranks that import torch on two busy cores are silent for 3 s
slurm:
  partition: spot
  poll_s: 1
  warn_s: 100
  coordinator: {{partition: steady}}
  prepare: {{partition: steady}}
"""


class Story:
    """The job, as a person at the submit host sees it."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.output = folder / "out"
        self.job = folder / "job.yaml"
        folder.chmod(0o755)
        (folder / "made").mkdir()
        self.hurry = folder / "made" / "hurry"
        self.job.write_text(JOB.replace("OUT", str(folder / "made")))
        self.backend = SlurmBackend(self.output, slurm=cluster.slurm())
        self.attempts = Attempts(Layout("digits", self.output))

    def edldist(self, *words: str, code: int = 0) -> str:
        return self.cluster.edldist(*words, code=code)

    def process(self, name: str) -> ProcessState:
        role = name.rpartition("-")[0] or name
        return next(each for each in self.backend.state().role(role).processes if each.id == name)

    def until(self, what: str, reached, timeout_s: float = 150.0) -> None:  # noqa: ANN001
        """Wait for a state of the job."""

        def look() -> bool:
            state: JobState = self.backend.state()
            assert state.phase not in ("failed", "succeeded"), f"{what}: {state}"
            return bool(reached(state))

        wait_for(what, look, timeout_s)

    def await_running(self, teachers: int, students: int) -> None:
        def there(state: JobState) -> bool:
            return (state.role("teacher").count("running"), state.role("student").count("running")) == (
                teachers,
                students,
            )

        self.until(f"{teachers} workers and {students} nodes", there)

    def steps(self) -> int:
        path = self.output / "events.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return max((line["step"] for line in lines if line["event"] == "progress"), default=0)

    def await_steps(self, more: int = 3) -> None:
        target = self.steps() + more
        self.until(f"step {target}", lambda state: self.steps() >= target)

    def await_attempts(self, process: str, count: int) -> None:
        self.until(f"attempt {count} of {process}", lambda state: self.attempts.count(process) >= count)

    def elapsed_s(self, engine_id: str) -> int:
        """How long a task has run."""
        parts = self.cluster.run("squeue", "-h", "-r", "-j", engine_id, "-o", "%M").strip().split(":")
        return sum(int(part) * 60**place for place, part in enumerate(reversed(parts)))

    def requeues(self, process: str) -> int:
        """How often Slurm brought the very same task back, by the record."""
        lines = (self.output / "events.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        return sum(e["event"].endswith("_requeued") and e.get("id") == process for e in events)

    def starts(self) -> dict[str, int]:
        names = [f"teacher-{n}" for n in range(4)] + ["student-0", "student-1"]
        return {name: self.attempts.count(name) for name in names}


@pytest.fixture
def story(cluster: Cluster, tmp_path: Path) -> Story:
    return Story(cluster, tmp_path)


def test_what_happens_to_jobs_on_a_cluster_costs_no_sample(story: Story, cluster: Cluster) -> None:
    out = ("--output", str(story.output))
    said = story.edldist("submit", "slurm", str(story.job), *out)
    assert "teacher: Slurm job 3" in said and "student: Slurm job 4, 2 tasks" in said
    assert "runs in" in story.edldist("submit", "slurm", str(story.job), *out, code=1)
    story.await_running(1, 2)
    story.await_steps()

    # Scaled up and down by a person.
    story.edldist("scale", "teacher=3", *out)
    story.await_running(3, 2)
    story.await_steps()
    story.edldist("scale", "teacher=2", *out)
    story.await_running(2, 2)

    # A worker and a node make room for others' jobs, drain within the grace, and come back.
    survivors = [
        each.id for each in story.backend.state().role("teacher").processes if each.phase == "running"
    ]
    victims = [survivors[0], "student-1"]
    before = story.starts()
    for victim in victims:
        where, cpus = (
            story.process(victim).where,
            CPUS[victim.rpartition("-")[0]],
        )  # beside others on that host
        cluster.run(
            *("sbatch", "-p", "urgent", "-w", where, f"--cpus-per-task={cpus}", "-o", "/dev/null"),
            *("--wrap", "sleep 3"),
        )
    for victim in victims:
        story.await_attempts(victim, before[victim] + 1)
    story.await_running(2, 2)
    assert [story.requeues(victim) for victim in victims] == [1, 1], "tasks of their arrays, brought back"
    story.await_steps()

    # A time limit comes near, and a host is cut off.
    limited, lonely = "student-0", survivors[-1]
    before = story.starts()
    host = story.process(lonely).where
    cluster.cut(host)
    task = story.process(limited).engine_id
    minutes = story.elapsed_s(task) // 60 + 2  # between one and two are left
    cluster.run("scontrol", "update", f"jobid={task}", f"timelimit={minutes}")
    try:
        story.await_attempts(limited, before[limited] + 1)
        cluster.run("scontrol", "update", f"jobid={task}", "timelimit=UNLIMITED")  # or it comes again
        story.await_attempts(lonely, before[lonely] + 1)
    finally:
        cluster.heal(host)
    cluster.await_hosts()
    story.await_running(2, 2)
    assert story.starts() == before | {each: before[each] + 1 for each in (limited, lonely)}
    assert story.process(limited).engine_id == task and story.requeues(limited) == 1
    story.await_steps()

    # Somebody cancels a worker: another one takes its place.
    before, cancelled = sum(story.starts().values()), story.process(lonely).engine_id
    cluster.run("scancel", cancelled)
    story.until("another worker", lambda state: sum(story.starts().values()) > before)
    story.await_running(2, 2)
    workers = story.backend.state().role("teacher").processes
    assert cancelled not in [each.engine_id for each in workers]
    assert sum(story.starts().values()) == before + 1

    # The coordinator's job is cancelled: the one that waits takes over, and nobody else starts anew.
    before, coordinator = story.starts(), story.process("coordinator")
    address = Layout("digits", story.output).address_file.read_text()
    cluster.run("scancel", coordinator.engine_id)
    story.until(
        "another coordinator",
        lambda state: (
            story.process("coordinator").engine_id != coordinator.engine_id
            and Layout("digits", story.output).address_file.exists()
            and Layout("digits", story.output).address_file.read_text() != address
        ),
    )
    story.await_steps()
    assert story.starts() == before

    story.hurry.touch()
    wait_for("the result", lambda: (story.output / "result.json").exists(), 300)
    result = json.loads((story.output / "result.json").read_text())
    assert result["status"] == "completed", result
    assert (result["metrics"]["lost"], result["metrics"]["repeated"]) == (0, 0)
    assert result["epochs"] == EPOCHS
    assert result["samples"] >= EPOCHS * len(splits(0)[0]), "all, though who counts was replaced"
    wait_for("an empty queue", lambda: not cluster.run("squeue", "-h", "-a").strip(), 120)
    assert story.backend.state().phase == "succeeded"
    assert not _left(story.output), "a process outlived its job"


def _left(output: Path) -> list[str]:
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if str(output) in " ".join(process.cmdline()) and process.pid != os.getpid():
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found
