"""Hosts that were cut off, written off and replaced are no second selves when their links are healed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.books import STEADY, Plan, assert_as_quiet, hurry, last_step, quiet_run, rank_books, world
from tests.fault.harness import Role, wait_for
from tests.fault.network import HostsJob, require_network_tools, switch

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]

PLAN = Plan(samples=12_000, batch_size=20)


@pytest.fixture
def job(tmp_path: Path) -> Iterator[HostsJob]:
    require_network_tools()
    with switch(["coordinator", "student", "h-0", "h-1", "h-2"]) as network:
        made = HostsJob(tmp_path, network=network, model=STEADY, pass_s=0.02)
        try:
            yield made
        finally:
            made.close()


def figures(job: HostsJob) -> dict[str, tuple[int, int]]:
    """Of each teacher worker: its process id, and how many samples it says to have labelled."""
    members = [member for member in job.status().members if member.role == "teacher"]
    return {member.id: (member.pid, int(member.stats.get("samples") or 0)) for member in members}


def test_a_worker_that_was_replaced_leaves_when_its_host_is_back(job: HostsJob) -> None:
    """As an engine does it: the successor has the same id, and runs on another host."""
    job.coordinator()
    lost, other = job.worker("t-0", "h-0"), job.worker("t-1", "h-1")
    student = job.script("student", **PLAN.args(job, step_s=0.05))
    job.await_step(15)
    job.host("h-0").cut()
    wait_for("its loss", lambda: "t-0" not in figures(job))
    successor = job.worker("t-0", "h-2")
    wait_for("its successor's labels", lambda: figures(job).get("t-0", (0, 0))[1] > 0)
    assert job.host("h-0").heal() > 0
    healed = time.time()

    assert lost.wait(30) == 1
    assert "wrote this member off while it was silent, and another process took its place" in lost.tail()
    print(f"it left {time.time() - healed:.2f} s after its host was back")
    before = figures(job)
    job.await_step(job.steps()[-1]["step"] + 30)
    after = figures(job)
    assert after.keys() == {"t-0", "t-1"}
    assert all(after[name][1] > before[name][1] for name in after), "one of them labels no more"
    assert other.alive and successor.alive and "no word from" not in successor.log.read_text()
    assert job.longest_gap(since=healed) < 1.0
    hurry(job)
    done = job.finish(student)
    assert done["counts"] == [1] and done["stats"]["teachers"] == 2


# --- student nodes ------------------------------------------------------------------------------------


def node(job: HostsJob, host: str) -> Role:
    return job.student(f"student@{host}", nnodes="1:2", **PLAN.args(job, step_s=0.1))


def ranks(*nodes: Role) -> set[int]:
    return {process.pid for role in nodes for process in role.ranks()}


def members(job: HostsJob) -> list[int]:
    """The processes of the ranks that count at the coordinator."""
    return [member.pid for member in job.status().members if member.role == "student"]


def await_group(job: HostsJob, size: int, without: set[int]) -> None:
    """Wait for steps of a group of so many ranks, none of which is one of these processes."""
    wait_for(
        f"steps of {size} new rank(s)",
        lambda: world(job) == size and job.steps()[-1]["pid"] not in without,
        90,
    )
    job.await_step(last_step(job) + 12)


def test_a_node_that_was_written_off_holds_nobody_up_and_comes_back_as_another(
    job: HostsJob, tmp_path: Path
) -> None:
    """Rank 0 is on it, which has the checkpoint directory, and lives."""
    quiet = quiet_run(tmp_path / "quiet", PLAN)
    job.coordinator()
    job.worker("t-0", "h-0")
    nodes = [node(job, "h-1"), node(job, "h-2")]
    wait_for("a group of two", lambda: world(job) == 2, 90)
    job.await_step(last_step(job) + 15)
    first = rank_books(job)[0][-1]["pid"]
    lost, survivor = nodes if first in ranks(nodes[0]) else nodes[::-1]
    former = ranks(*nodes)
    job.host(lost.name).cut()
    await_group(job, 1, former)
    assert first in ranks(lost), "it lives, and knows nothing"
    assert "took the checkpoint directory" in survivor.log.read_text()
    assert members(job) == list(ranks(survivor))

    job.host(lost.name).heal()
    healed = time.time()
    wait_for("its end", lambda: first not in ranks(lost), 20)
    print(f"its rank left {time.time() - healed:.2f} s after its host was back")
    assert first not in members(job), "it counted a second time"
    await_group(job, 2, former)
    hurry(job)
    done = job.finish(survivor)
    assert lost.wait(60) == 0
    assert_as_quiet(job, done, PLAN, quiet, bitwise=False)


def test_a_node_that_trains_alone_while_another_took_its_place_saves_nothing(
    job: HostsJob, tmp_path: Path
) -> None:
    """Cut off from the coordinator alone it has all it needs, its teacher too, and goes on by itself."""
    quiet = quiet_run(tmp_path / "quiet", PLAN)
    job.coordinator()
    job.worker("t-0", "h-0")
    lost = node(job, "h-1")
    wait_for("a group of one", lambda: world(job) == 1, 90)
    job.await_step(15)
    (former,) = ranks(lost)
    job.host("h-1").cut(others=[job.host("coordinator")])
    successor = node(job, "h-2")
    wait_for("its end", lambda: former not in ranks(lost), 60)
    log = lost.log.read_text()
    assert "generation 1 of run edldist was written off: pid" in log
    assert "of generation 2, has the checkpoint directory" in log
    await_group(job, 1, {former})
    assert job.host("h-1").heal() > 0
    await_group(job, 2, {former})
    hurry(job)
    done = job.finish(successor)
    assert lost.wait(60) == 0
    assert_as_quiet(job, done, PLAN, quiet, bitwise=False)
