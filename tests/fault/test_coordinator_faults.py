"""The coordinator is killed and comes back at any moment: labels flow on, and nobody else notices."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from edldist.wire.messages import Status
from tests.fault.books import STEADY, Plan, assert_as_quiet, hurry, last_step, quiet_run, redone, world
from tests.fault.harness import FaultJob, Role, fault_job, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]

PLAN = Plan(samples=20_000, batch_size=20, epochs=2)
SMALL = Plan(samples=1000, batch_size=20)


def members(status: Status) -> tuple[int, int]:
    """How many teachers and students a status knows."""
    roles = [member.role for member in status.members]
    return roles.count("teacher"), roles.count("student")


def await_members(job: FaultJob, teachers: int, students: int) -> float:
    """Wait for exactly these; seconds that the coordinator then had run."""
    found = wait_for(
        f"{teachers} teachers and {students} students",
        lambda: (status := job.status()) and members(status) == (teachers, students) and status,
    )
    return found.uptime_s


def await_steps(job: FaultJob, more: int) -> None:
    job.await_step(last_step(job) + more)


def test_a_coordinator_killed_idle_and_during_joins_is_missed_by_nobody(tmp_path: Path) -> None:
    quiet = quiet_run(tmp_path / "quiet", PLAN, task_size=10)
    with fault_job(tmp_path, model=STEADY, deterministic=True, task_size=10) as job:
        coordinator = job.coordinator()
        workers = [job.teacher(f"t-{number}") for number in range(2)]
        student = job.script(**PLAN.args(job, step_s=0.02))
        job.await_step(20)
        await_members(job, 2, 1)
        began = time.time()

        # Idle, up to three times: how soon its successor knows everyone is a matter of the machine too.
        tries = []
        while not tries or (min(tries) > 2 * job.heartbeat_interval_s + 0.2 and len(tries) < 3):
            coordinator.kill()
            await_steps(job, 40)
            coordinator = job.coordinator()
            tries.append(await_members(job, 2, 1))
        assert min(tries) <= 2 * job.heartbeat_interval_s + 0.2, tries

        # While workers join: some on their way, some that find nobody.
        workers += [job.teacher(f"t-{number}") for number in (2, 3)]
        await_steps(job, 20)
        coordinator.kill()
        workers.append(job.teacher("t-4"))
        await_steps(job, 60)
        coordinator = job.coordinator()
        await_members(job, 5, 1)

        # While a student joins.
        other = tmp_path / "other"
        second = job.script("student-second", output=other, **SMALL.args(job, step_s=0.05))
        coordinator.kill()
        await_steps(job, 100)
        assert not job.steps(other), "the second student did not wait for the coordinator"
        coordinator = job.coordinator()
        await_members(job, 5, 2)
        job.await_step(5, output=other)

        ended = time.time()
        assert all(role.alive for role in [*workers, student, second])
        assert {record["pid"] for record in job.steps()} == {student.pid}
        assert redone(job) == 0
        assert job.longest_gap(since=began, until=ended) < 1.0
        for worker in workers:
            assert "no longer serving" not in worker.log.read_text(), worker.name
        assert not job.events("teacher_lost") and not job.events("student_lost")

        hurry(job)
        done_second = job.finish(second, output=other)
        assert (done_second["counts"], done_second["step"]) == ([1], SMALL.steps)
        done = job.finish(student)
        assert done["stats"]["requeued"] == done["stats"]["duplicates"] == 0
        assert_as_quiet(job, done, PLAN, quiet, bitwise=True)


# --- where student nodes meet ----------------------------------------------------------------------


def pids(nodes: list[Role]) -> set[int]:
    return {process.pid for node in nodes for process in node.ranks()}


@pytest.mark.timeout(360)
def test_a_coordinator_that_dies_leaves_a_group_alone_and_its_successor_forms_the_next(
    tmp_path: Path,
) -> None:
    quiet = quiet_run(tmp_path / "quiet", PLAN)
    with fault_job(tmp_path, model=STEADY) as job:
        first = job.coordinator()
        job.teacher("t-0")
        args = PLAN.args(job, step_s=0.1)
        nodes = [job.student(f"student-{number}", nnodes="1:3", **args) for number in range(2)]
        wait_for("a group of two", lambda: world(job) == 2, 60)
        await_steps(job, 10)
        ranks = pids(nodes)

        # The group trains on, with the next coordinator too.
        first.kill()
        await_steps(job, 10)
        second = job.coordinator()
        wait_for("a report of the group", lambda: "learned of generation" in second.log.read_text())
        await_steps(job, 30)
        assert pids(nodes) == ranks and redone(job) == 0

        # It lets a node in.
        nodes.append(job.student("student-2", nnodes="1:3", **args))
        wait_for("a step of three ranks", lambda: world(job) == 3, 60)
        assert " has 3 nodes, 3 ranks" in second.log.read_text()
        await_steps(job, 10)

        # A rank dies while nobody coordinates: the nodes wait, and meet again.
        second.kill()
        ranks = pids(nodes)
        nodes[0].ranks()[0].kill()
        wait_for("the ranks to end", lambda: not pids(nodes) & ranks, 60)
        third = job.coordinator()
        wait_for(
            "a step of three new ranks", lambda: world(job) == 3 and job.steps()[-1]["pid"] not in ranks, 60
        )
        assert " has 3 nodes, 3 ranks" in third.log.read_text()
        assert all(node.alive for node in nodes)
        assert not any("ended by itself" in node.log.read_text() for node in nodes)
        hurry(job)
        done = job.finish(nodes[0])
        assert [node.wait(60) for node in nodes] == [0, 0, 0]
        assert_as_quiet(job, done, PLAN, quiet, bitwise=False)


def test_a_killed_coordinator_and_an_interrupted_job_leave_no_process(tmp_path: Path) -> None:
    with fault_job(tmp_path, model=STEADY) as job:
        coordinator = job.coordinator()
        job.teacher("t-0")
        nodes = [job.student(f"student-{n}", nnodes="2", **SMALL.args(job, step_s=0.3)) for n in range(2)]
        job.await_step(2)
        assert coordinator.tree() == [], "nothing outlives a coordinator but what it never started"
        family = [process for node in nodes for process in node.tree()]
        coordinator.kill()
        for node in nodes:
            node.send(signal.SIGINT)
        assert [node.wait(60) for node in nodes] == [143, 143]
        wait_for("everything to be gone", lambda: not any(process.is_running() for process in family))
