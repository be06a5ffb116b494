"""The coordinator is killed and comes back at any moment: labels flow on, and nobody else notices."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from torch.distributed import TCPStore

from edldist.wire.messages import Status
from edldist.wire.query import StatusClient
from tests.fault.books import STEADY, Plan, assert_as_quiet, hurry, last_step, quiet_run, redone, world
from tests.fault.harness import ROOT, STORE, FaultJob, fault_job, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(180)]

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


# --- the rendezvous store --------------------------------------------------------------------------


def address_of_store(job: FaultJob) -> str:
    with contextlib.closing(StatusClient(job.address)) as client:
        return wait_for("the store", lambda: client.rendezvous().address, 60)


def open_store(address: str) -> TCPStore:
    host, _, port = address.rpartition(":")
    return TCPStore(host, int(port), is_master=False, timeout=timedelta(seconds=10))


@contextlib.contextmanager
def ended_at_last(process: psutil.Process):  # noqa: ANN201
    """A process that may survive its parent is ours to end."""
    try:
        yield
    finally:
        with contextlib.suppress(psutil.Error):
            process.kill()


def test_the_rendezvous_store_outlives_its_coordinator_and_ends_with_the_next(tmp_path: Path) -> None:
    quiet = quiet_run(tmp_path / "quiet", SMALL)
    with fault_job(tmp_path, model=STEADY) as job:
        first = job.coordinator()
        job.teacher("t-0")
        args = SMALL.args(job, step_s=0.3)
        node = job.student("student-0", nnodes="1:2", **args)
        job.await_step(3)
        address = address_of_store(job)
        store = job.store()
        with ended_at_last(store):
            open_store(address).set("kept", "yes")
            ranks = {process.pid for process in node.ranks()}

            first.kill()
            await_steps(job, 5)
            assert store.is_running() and {p.pid for p in node.ranks()} == ranks
            second = job.coordinator()
            wait_for(
                "adoption", lambda: f"adopted the rendezvous store at {address}" in second.log.read_text()
            )
            assert address_of_store(job) == address
            assert open_store(address).get("kept") == b"yes"
            assert not [p for p in second.tree() if STORE in p.cmdline()], "a second store was started"

            # The agents still meet there.
            job.student("student-1", nnodes="1:2", **args)
            wait_for("a step of two ranks", lambda: world(job) == 2, 60)
            hurry(job)
            done = job.finish(node)
            assert_as_quiet(job, done, SMALL, quiet, bitwise=False)

            second.send(signal.SIGTERM)
            assert second.wait(10) == 0
            wait_for("the store to end", lambda: not store.is_running(), 10)


def test_a_store_without_any_coordinator_ends_by_itself(tmp_path: Path) -> None:
    log = (tmp_path / "store.log").open("wb")
    with log:
        store = subprocess.Popen(
            [sys.executable, "-m", STORE, "--address", "127.0.0.1:0", "--orphan-s", "1"]
            + ["--coordinator", "tcp://127.0.0.1:9"],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )
        try:
            assert store.wait(60) == 0
        finally:
            store.kill()
            store.wait()
    assert "the rendezvous store ends" in (tmp_path / "store.log").read_text()


def test_nodes_meet_again_when_the_rendezvous_store_was_lost(tmp_path: Path) -> None:
    quiet = quiet_run(tmp_path / "quiet", PLAN)
    with fault_job(tmp_path, model=STEADY) as job:
        coordinator = job.coordinator()
        job.teacher("t-0")
        args = PLAN.args(job, step_s=0.05)
        nodes = [job.student(f"student-{number}", nnodes="1:2", **args) for number in range(2)]
        wait_for("a group of two", lambda: world(job) == 2, 60)
        await_steps(job, 10)
        supervisors = [node.pid for node in nodes]

        store = job.store()
        store.kill()
        former = {process.pid for node in nodes for process in node.ranks()}

        def met() -> bool:
            last = job.steps()[-1]
            return last["pid"] not in former and last["world"] == 2

        wait_for("the two nodes to meet at another store", met, 90)
        await_steps(job, 10)
        assert "was lost: starting it anew" in coordinator.log.read_text()
        for node in nodes:
            assert "the agent of this node ended by itself" in node.log.read_text()
        assert [node.pid for node in nodes] == supervisors and all(node.alive for node in nodes)
        hurry(job)
        done = job.finish(nodes[0])
        assert nodes[1].wait(60) == 0
        assert_as_quiet(job, done, PLAN, quiet, bitwise=False)
