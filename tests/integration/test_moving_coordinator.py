"""A coordinator that comes back at another address: who knows its file finds it, and nobody starts anew."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edldist.wire.messages import Report
from tests.fault.books import STEADY, Plan, hurry
from tests.fault.harness import FaultJob, fault_job, wait_for

pytestmark = pytest.mark.timeout(240)

PLAN = Plan(samples=8000, batch_size=20)
ELSEWHERE_S = 30.0


def here(job: FaultJob) -> tuple[int, int]:
    """How many teachers and ranks the coordinator of now knows."""
    roles = [member.role for member in job.status().members]
    return roles.count("teacher"), roles.count("student")


@pytest.mark.slow
def test_a_coordinator_that_comes_back_elsewhere_is_found_by_everybody(tmp_path: Path) -> None:
    with fault_job(tmp_path, model=STEADY, moving=True) as job:
        # Members come first, and wait for the file.
        worker = job.teacher("t-0")
        args = PLAN.args(job, step_s=0.1)
        nodes = [job.student(f"student-{number}", nnodes="2", **args) for number in range(2)]
        first = job.coordinator()
        wait_for("a worker and two ranks", lambda: here(job) == (1, 2), 90)
        job.await_step(5)
        ranks = {process.pid for node in nodes for process in node.ranks()}
        addresses = [job.address]

        first.kill()
        gone_at = time.time()
        job.await_step(max(record["step"] for record in job.steps()) + 20)
        second = job.coordinator()
        addresses.append(job.address)
        wait_for("all of them again", lambda: here(job) == (1, 2), ELSEWHERE_S)
        wait_for("the nodes of the group", lambda: "learned of generation" in second.log.read_text())
        wait_for("reports", lambda: any(isinstance(r, Report) for r in job.status().records), ELSEWHERE_S)

        # A rank that is killed now comes back, for both nodes meet at the new place.
        assert {process.pid for node in nodes for process in node.ranks()} == ranks
        assert job.longest_gap(since=gone_at) < 1.0
        nodes[0].ranks()[0].kill()
        wait_for("new ranks", lambda: {record["pid"] for record in job.steps()} - ranks, 60)

        hurry(job)
        done = job.finish(nodes[0])
        assert nodes[1].wait(60) == 0 and worker.alive
        assert done["counts"] == [1] and done["step"] == PLAN.steps
        assert len(set(addresses)) == 2
