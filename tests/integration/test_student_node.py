"""``edldist student`` as a process of its own: hosts without a usable name, jobs that share a coordinator."""

from __future__ import annotations

import contextlib
import select
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.integration.commands import WITHIN_S, edldist, student
from tests.integration.members import Running, until

pytestmark = pytest.mark.timeout(240)

NAMELESS = ["unshare", "--uts", "sh", "-c", 'hostname no-such-name.invalid && exec "$@"', "sh"]

MEETING = """
import os
import torch
import torch.distributed as dist

dist.init_process_group("gloo")
ranks = torch.ones(1)
dist.all_reduce(ranks)
os.write(1, f"of {int(ranks)} name {os.uname().nodename}\\n".encode())  # in one piece, beside others
dist.destroy_process_group()
"""


@pytest.fixture
def nameless() -> list[str]:
    """A prefix of commands: they run on a host whose own name resolves to nothing."""
    if shutil.which("unshare") is None or subprocess.run([*NAMELESS, "true"], capture_output=True).returncode:
        pytest.skip("no UTS namespaces for this user")
    return NAMELESS


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "meet.py"
    path.write_text(MEETING)
    return path


@pytest.mark.slow
def test_one_node_needs_no_name_of_its_own(nameless: list[str], script: Path) -> None:
    with student("tcp://127.0.0.1:9", "--nproc-per-node", "2", str(script), prefix=nameless) as node:
        said = node.communicate(timeout=WITHIN_S)[0]
    assert node.returncode == 0, said
    assert said.count("of 2 name no-such-name.invalid") == 2


UNANSWERED = """
ip link set lo up && hostname no-such-name.invalid &&
echo nameserver 127.0.0.1 > "$1/resolv.conf" && mount --bind "$1/resolv.conf" /etc/resolv.conf || exit 99
"$2" -c 'import signal, socket
silent = socket.socket(type=socket.SOCK_DGRAM); silent.bind(("127.0.0.1", 53)); print("there", flush=True)
signal.pause()' > "$1/there" &
while [ ! -s "$1/there" ]; do sleep 0.02; done
shift 2
"$@"
"""


@pytest.mark.slow
def test_one_node_asks_no_resolver(script: Path, tmp_path: Path) -> None:
    """One that is out of reach, as in many a container, takes 20 s of everybody who asks it."""
    spaces = ["--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    prefix = ["unshare", *spaces, "sh", "-c", UNANSWERED, "sh", str(tmp_path), sys.executable]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces for this user")
    with student("tcp://127.0.0.1:9", "--nproc-per-node", "2", str(script), prefix=prefix) as node:
        said = node.communicate(timeout=WITHIN_S)[0]
    assert node.returncode == 0 and said.count("of 2 name no-such-name.invalid") == 2, said


@pytest.mark.slow
def test_several_nodes_meet_by_the_way_to_the_coordinator(
    nameless: list[str], script: Path, running: Running
) -> None:
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(student(running.address, "--nnodes", "2", str(script), prefix=nameless))
            for _ in range(2)
        ]
        said = [node.communicate(timeout=WITHIN_S)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert all("of 2 name no-such-name.invalid" in text for text in said), said


def test_nodes_meet_through_the_coordinators_own_port_whoever_listens_beside_it(
    script: Path, tmp_path: Path
) -> None:
    """A coordinator on the loopback interface opens nothing anywhere else, and asks no stranger."""
    ready = tmp_path / "ready.json"
    with contextlib.ExitStack() as stack:
        port, stranger = neighbours(stack)
        coordinator = stack.enter_context(
            edldist(
                *("coordinator", "--bind", f"tcp://127.0.0.1:{port}", "--http", "127.0.0.1:0"),
                *("--address-file", str(ready)),
            )
        )
        until(ready.exists, "the coordinator")
        nodes = [
            stack.enter_context(student(f"tcp://127.0.0.1:{port}", "--nnodes", "2", str(script)))
            for _ in range(2)
        ]
        said = [node.communicate(timeout=WITHIN_S)[0] for node in nodes]
        process = psutil.Process(coordinator.pid)
        family = [process, *process.children(recursive=True)]
        listening = {c.laddr for p in family for c in p.net_connections("tcp") if c.status == "LISTEN"}
        strangers_guests = select.select([stranger], [], [], 0)[0]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert {address.ip for address in listening} == {"127.0.0.1"} and len(listening) == 2
    assert family == [process] and not strangers_guests


def neighbours(stack: contextlib.ExitStack) -> tuple[int, socket.socket]:
    """A free port, and a socket that listens two ports further and never answers."""
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        stranger = socket.socket()
        with contextlib.suppress(OSError, OverflowError):
            stranger.bind(("127.0.0.1", port + 2))
            stranger.listen()
            stack.callback(stranger.close)
            return port, stranger
        stranger.close()
    raise AssertionError("no two free ports beside each other")


TOGETHER = """
import os, sys, time
here, other = sys.argv[1:]
open(here, "w").close()
while not os.path.exists(other):
    time.sleep(0.05)
"""


@pytest.mark.slow
def test_two_jobs_at_one_coordinator_do_not_meet(tmp_path: Path, script: Path, running: Running) -> None:
    script.write_text(TOGETHER + script.read_text())
    files = [str(tmp_path / "one"), str(tmp_path / "other")]
    with contextlib.ExitStack() as stack:
        nodes = [
            stack.enter_context(student(running.address, "--nnodes", "1:2", str(script), *both))
            for both in (files, files[::-1])
        ]
        said = [node.communicate(timeout=WITHIN_S)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert all("of 1 name" in text for text in said), said


@pytest.mark.slow
def test_ranks_wait_no_longer_for_a_coordinator_than_their_node(tmp_path: Path) -> None:
    script = tmp_path / "waits.py"
    script.write_text("import os; print('waits', os.environ['EDLDIST_CONNECT_TIMEOUT_S'])")
    with student("tcp://127.0.0.1:9", "--connect-timeout-s", "3", str(script)) as node:
        said = node.communicate(timeout=WITHIN_S)[0]
    assert node.returncode == 0 and "waits 3.0" in said, said
