"""Hosts of a test's own, on a switch of its own, whose links can be cut, made lossy or reset.

Each host is a network namespace joined by a veth pair to a bridge in one more namespace, the switch.
A namespace lives as long as the process that holds it, and those are tied to the test's life:
nothing is left behind, however the test ends, and nothing outside is touched. Packets are dropped
at the switch, where neither end can tell.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

from edldist_launch.process.tie import tied_command
from tests.fault.harness import EDLDIST, FaultJob, Role, wait_for

T = TypeVar("T")
SUBNET = "10.77.0"
CLONE_NEWNET = 0x40000000
OPEN = {"EDLDIST_INSECURE": "1"}
"""Nobody else is on the switch."""
TOOLS = ("ip", "ss", "nft", "nsenter", "unshare")
PROBE = """table netdev probe {
    chain probe { type filter hook egress device "probe" priority 0; numgen random mod 100 < 30 drop; }
}"""
"""Everything that faults need of the kernel. ``tc netem`` is not among it: fewer kernels have that."""


def require_network_tools() -> None:
    """Skip unless this process may make network namespaces, and the tools for it are here."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")

    def missing() -> list[str]:
        return [tool for tool in TOOLS if shutil.which(tool) is None]

    if missing() and shutil.which("apt-get") is not None:
        install = Path(__file__).with_name("install.sh")
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([str(install)], capture_output=True, timeout=150, check=False)
    if missing():
        pytest.skip(f"{', '.join(missing())} cannot be had here")
    try:
        with contextlib.closing(Namespace()) as probe:
            probe.inside("ip", "link", "add", "probe", "type", "veth", "peer", "name", "far")
            probe.inside("ip", "link", "add", "bridge", "type", "bridge")
            probe.inside("nft", "-f", "-", given=PROBE)
    except subprocess.CalledProcessError as exc:
        said = (exc.stderr or b"").decode(errors="replace").strip()
        pytest.skip(f"this system makes no virtual networks: {' '.join(exc.cmd)}: {said}")


def _run(*command: str, given: str = "") -> str:
    return subprocess.run(
        command, input=given.encode(), capture_output=True, timeout=150, check=True
    ).stdout.decode()


class Namespace:
    """A network namespace, held by a process that does nothing else.

    Args:
        holder: the command of that process, from its namespaces on.
    """

    def __init__(self, holder: Sequence[str] = ("unshare", "--net", "sleep", "infinity")) -> None:
        ours = os.readlink("/proc/self/ns/net")
        self._holder = subprocess.Popen(tied_command(list(holder), os.getpid(), signal.SIGKILL))
        self.pid = self._holder.pid
        self._path = f"/proc/{self.pid}/ns/net"
        wait_for("a network namespace", lambda: self._holder.poll() or os.readlink(self._path) != ours)
        if self._holder.poll() is not None:
            raise subprocess.CalledProcessError(self._holder.returncode, ["unshare", "--net"])

    @property
    def enter(self) -> list[str]:
        """A command that runs what follows it in here, as the same process."""
        return ["nsenter", f"--net={self._path}", "--"]

    def inside(self, *command: str, given: str = "") -> str:
        return _run(*self.enter, *command, given=given)

    def call(self, function: Callable[[], T]) -> T:
        """Call a function of this process in here: sockets that it opens belong to this namespace."""

        def visit() -> T:
            with open(self._path) as place:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(place.fileno(), CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"setns to {self._path} failed")
            return function()

        with ThreadPoolExecutor(1) as visitor:  # a thread may be elsewhere than its process
            return visitor.submit(visit).result()

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()


class Host(Namespace):
    """One host: the other end of its link is a port of the switch.

    "In" and "out" are as the host sees them: "in" cut, it hears nothing but is heard.
    """

    def __init__(self, number: int, switch: Namespace, *holder: Sequence[str]) -> None:
        super().__init__(*holder)
        self.address = f"{SUBNET}.{number}"
        self._switch = switch
        self._port = f"port{number}"
        self._faulty = False
        peer = ["peer", "name", "eth0", "netns", str(self.pid)]
        switch.inside("ip", "link", "add", self._port, "type", "veth", *peer)
        switch.inside("ip", "link", "set", self._port, "master", "bridge", "up")
        self.inside("ip", "link", "set", "lo", "up")
        self.inside("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        self.inside("ip", "link", "set", "eth0", "up")

    def cut(self, direction: str = "both", others: Sequence[Host] = (), percent: int = 100) -> None:
        """Lose packets of this host's link until ``heal``.

        Args:
            direction: "in", "out" or "both".
            others: only packets from and to these; everyone's by default.
            percent: how many of a hundred, picked at random.
        """
        assert direction in ("in", "out", "both") and not self._faulty
        chance = f"numgen random mod 100 < {percent} " if percent < 100 else ""
        peers = f"{{ {', '.join(other.address for other in others)} }} " if others else ""
        rules = []
        for way, hook, end in (("in", "egress", "ip saddr"), ("out", "ingress", "ip daddr")):
            if direction in (way, "both"):
                match = f"{end} {peers}" if others else ""
                rules.append(
                    f'chain {way}bound {{ type filter hook {hook} device "{self._port}" priority 0; '
                    f"policy accept; {match}{chance}counter name lost drop; }}\n"
                )
        table = f"table netdev {self._port} {{\ncounter lost {{ }}\n{''.join(rules)}}}\n"
        self._switch.inside("nft", "-f", "-", given=table)
        self._faulty = True

    def lost(self) -> int:
        """Packets that the present fault has dropped."""
        said = self._switch.inside("nft", "-j", "list", "counters", "table", "netdev", self._port)
        counters = [item["counter"] for item in json.loads(said)["nftables"] if "counter" in item]
        return int(counters[0]["packets"])

    def heal(self) -> int:
        """End the fault; the packets that it has dropped."""
        dropped = self.lost()
        self._switch.inside("nft", "delete", "table", "netdev", self._port)
        self._faulty = False
        return dropped

    def reset(self) -> int:
        """Abort every TCP connection of this host, at both ends; how many there were.

        The far ends learn it by the reset packets: cut the link before, and they learn it when they
        next say something.
        """
        return len(self._connections("-K"))

    def connected(self) -> bool:
        """Whether it has a TCP connection that a ``reset`` would abort."""
        return bool(self._connections())

    def _connections(self, *options: str) -> list[str]:
        return self.inside("ss", *options, "-t", "-H", "-n", "state", "established").splitlines()


class Switch(Namespace):
    """Connects hosts, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts: dict[str, Host] = {}
        self.inside("ip", "link", "add", "bridge", "type", "bridge")
        self.inside("ip", "link", "set", "bridge", "up")

    def add(self, name: str) -> Host:
        self.hosts[name] = host = Host(len(self.hosts) + 1, self)
        return host

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()
        super().close()


@contextlib.contextmanager
def switch(names: Sequence[str]) -> Iterator[Switch]:
    """A switch with a host for each name."""
    made = Switch()
    try:
        for name in names:
            made.add(name)
        yield made
    finally:
        made.close()


@dataclass
class NetworkJob(FaultJob):
    """A job each role of which runs on the host of its name."""

    network: Switch = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.address = f"tcp://{self.network.hosts['coordinator'].address}:0"

    def _start(
        self, name: str, *command: str, env: dict[str, str] | None = None, program: list[str] | None = None
    ) -> Role:
        host = self.network.hosts[name]
        program = [*host.enter, *(program or EDLDIST)]
        return super()._start(name, *command, env=OPEN | (env or {}), program=program)

    def status(self, since: int = 0):  # noqa: ANN201
        """As seen on the coordinator's own host, whatever its link is like."""
        with pytest.MonkeyPatch.context() as patch:
            for variable, value in OPEN.items():
                patch.setenv(variable, value)
            return self.network.hosts["coordinator"].call(lambda: super(NetworkJob, self).status(since))


class HostsJob(NetworkJob):
    """One whose roles run on the host that their names end with, as in ``t-0@h-1``."""

    def _start(
        self, name: str, *command: str, env: dict[str, str] | None = None, program: list[str] | None = None
    ) -> Role:
        host = self.host(name)
        program = [*host.enter, *(program or EDLDIST)]
        return FaultJob._start(self, name, *command, env=OPEN | (env or {}), program=program)

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
