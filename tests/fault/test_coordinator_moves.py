"""A coordinator is replaced by one at the same name with another address, as Kubernetes does it.

Two student nodes train, each on a host of its own; the name stands in their ``/etc/hosts``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edldist.wire.messages import Status
from edldist.wire.query import StatusClient
from tests.fault.books import STEADY, Plan, assert_as_quiet, hurry, last_step, quiet_run, redone, world
from tests.fault.harness import EDLDIST, Role, wait_for
from tests.fault.network import HostsJob, require_network_tools, switch

pytestmark = [
    *(pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(360)),
    pytest.mark.usefixtures("open_link"),
]

PLAN = Plan(samples=40_000, batch_size=20)
NAME, PORT = "coordinator.job", 7070
UNCONFIRMED_S = 5.0
"""A connection to a host that is gone without a word is given up after so long."""


class NamedJob(HostsJob):
    """Its roles find the coordinator by its name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.address = f"tcp://{NAME}:{PORT}"
        self.hosts = self.folder / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n")

    def _start(
        self, name: str, *command: str, env: dict[str, str] | None = None, program: list[str] | None = None
    ) -> Role:
        named = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f'mount --bind "{self.hosts}" /etc/hosts && exec "$@"',
            "sh",
        ]
        return super()._start(name, *command, env=env, program=[*named, *(program or EDLDIST)])

    def lead(self, host: str) -> Role:
        """Start a coordinator on a host, and have its name point there from now on."""
        ready = self.folder / f"{host}.json"
        self.leads = self.network.hosts[host]
        role = self._start(
            f"coordinator@{host}",
            *("coordinator", "--bind", f"tcp://{self.leads.address}:{PORT}", "--http", "127.0.0.1:0"),
            *("--heartbeat-interval-s", str(self.heartbeat_interval_s)),
            *("--heartbeat-ttl-s", str(self.heartbeat_ttl_s), "--address-file", str(ready)),
        )
        wait_for("the coordinator", ready.exists)
        with self.hosts.open("r+") as book:  # in place: it is mounted elsewhere
            book.truncate()
            book.write(f"127.0.0.1 localhost\n{self.leads.address} {NAME}\n")
        return role

    def status(self, since: int = 0) -> Status:
        def ask() -> Status:
            with contextlib.closing(StatusClient(f"tcp://{self.leads.address}:{PORT}")) as client:
                return client.query(since, timeout_s=10.0)

        return self.leads.call(ask)


@pytest.fixture
def job(tmp_path: Path) -> Iterator[NamedJob]:
    require_network_tools()
    with switch(["coordinator", "c-0", "c-1", "t", "n-0", "n-1", "n-2"]) as network:
        made = NamedJob(tmp_path, network=network, model=STEADY, pass_s=0.01)
        try:
            yield made
        finally:
            made.close()


@pytest.mark.parametrize("way", ["killed", "its host gone"])
def test_a_coordinator_that_moves_to_another_address_is_found_by_its_name(
    job: NamedJob, tmp_path: Path, way: str
) -> None:
    quiet = quiet_run(tmp_path / "quiet", PLAN)
    first = job.lead("c-0")
    job.worker("t-0", "t")

    def node(number: int) -> Role:
        return job.student(f"student@n-{number}", nnodes="1:3", **PLAN.args(job, step_s=0.1))

    nodes = [node(0), node(1)]
    wait_for("a group of two", lambda: world(job) == 2, 120)
    job.await_step(last_step(job) + 15)
    ranks = {process.pid for role in nodes for process in role.ranks()}

    gone = time.time()
    if way == "killed":
        first.kill()
    job.host("c-0").cut()  # nobody is there to refuse a connection
    second = job.lead("c-1")
    there = time.time()
    wait_for("everyone", lambda: len(job.status().members) == 3)
    print(f"{way}: everyone is at the next one {time.time() - there:.1f} s after it began")
    assert time.time() - there < 2 * UNCONFIRMED_S
    wait_for("a report of the group", lambda: "learned of generation" in second.log.read_text())
    job.await_step(last_step(job) + 15)
    assert {process.pid for role in nodes for process in role.ranks()} == ranks
    assert redone(job) == 0 and job.longest_gap(since=gone) < 1.0

    nodes.append(node(2))
    wait_for("a step of three ranks", lambda: world(job) == 3, 120)
    assert " has 3 nodes, 3 ranks" in second.log.read_text()
    if way != "killed":
        assert job.host("c-0").heal() > 0  # it still serves, and nobody asks it
    hurry(job)
    done = job.finish(nodes[0], 180)
    assert [role.wait(60) for role in nodes] == [0, 0, 0]
    assert_as_quiet(job, done, PLAN, quiet, bitwise=False)
