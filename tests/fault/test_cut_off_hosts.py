"""Hosts that were cut off, written off and replaced are no second selves when their links are healed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.books import STEADY, Plan, hurry
from tests.fault.harness import EDLDIST, FaultJob, Role, wait_for
from tests.fault.network import Host, NetworkJob, require_network_tools, switch

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]

PLAN = Plan(samples=12_000, batch_size=20)


class HostsJob(NetworkJob):
    """One whose roles run on the host that their names end with, as in ``t-0@h-1``."""

    def _start(
        self, name: str, *command: str, env: dict[str, str] | None = None, program: list[str] | None = None
    ) -> Role:
        host = self.host(name)
        return FaultJob._start(self, name, *command, env=env, program=[*host.enter, *(program or EDLDIST)])

    def host(self, name: str) -> Host:
        return self.network.hosts[name.rpartition("@")[2]]

    def worker(self, name: str, host: str) -> Role:
        """A teacher worker with this id, on this host."""
        return self._start(
            f"{name}@{host}",
            *("teacher", "--coordinator", self.address, "--id", name, "--batch-size", "10"),
            *("--model", self.model),
            env={"OMP_NUM_THREADS": "1"},
        )


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
