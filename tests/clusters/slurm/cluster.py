"""A Slurm of a test's own: a controller and some hosts, each with a name, an address and its own processes.

Every host is a network, host name, mount and process namespace, so that it is told from the others by
everything that tells machines apart: nobody finds a process, or shared memory, of another host. They share
one file system, as the hosts of a cluster do, and one kernel. A process namespace ends with its first
process, which is tied to the process that made the cluster: whatever becomes of that one, nothing is left.

There are no accounts and there is no database. Partitions: ``steady`` is never preempted, jobs of ``spot``
make room for those of ``urgent`` and are requeued, ``SPOT_GRACE_S`` after they were told. The first half of
the hosts have the feature ``fast`` and two devices ``accel:fast``, the others ``slow``. Jobs run as root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from edldist_launch.process.tie import tied_command
from edldist_launch.slurm.commands import SlurmCommands, run_command
from tests.fault.harness import EDLDIST, ROOT, wait_for
from tests.fault.network import Host, Switch, require_network_tools

__all__ = ["KILL_WAIT_S", "SPOT_GRACE_S", "Cluster", "require_slurm", "slurm_cluster"]

HOSTS = 6
SPOT_GRACE_S = 20
KILL_WAIT_S = 30
SILENT_S = 10
"""After so long without a word from a host, its jobs are requeued."""
_TOOLS = ("slurmctld", "slurmd", "munged", "mungekey", "sbatch")
_INIT = """\
mount --bind {folder}/hosts /etc/hosts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
hostname {name}
: > {folder}/run/{name}
while :; do sleep 3600 & wait; done
"""
"""The first process of a host: what makes it one, and then what collects orphans."""

_CONF = """\
ClusterName=test
SlurmctldHost=ctl({controller})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
GresTypes=accel
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=100000,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait={kill_wait_s}
InactiveLimit=0
ReturnToService=2
SlurmdTimeout={silent_s}
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
{nodes}
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE State=UP
PartitionName=steady Default=YES PriorityTier=1 PreemptMode=OFF
PartitionName=spot PriorityTier=1 PreemptMode=REQUEUE GraceTime={spot_grace_s}
PartitionName=urgent PriorityTier=10 PreemptMode=OFF
"""


def require_slurm() -> None:
    """Skip unless this process is root and Slurm is here, or can be installed."""
    if os.geteuid() != 0:
        pytest.skip("Slurm's hosts are namespaces, which need root")
    if missing() and shutil.which("apt-get") is not None:
        install = Path(__file__).with_name("install.sh")
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([str(install)], capture_output=True, timeout=200, check=False)
    if missing():
        pytest.skip(f"{', '.join(missing())} cannot be had here: Debian's slurm-wlm and munge have them")
    require_network_tools()


def missing() -> list[str]:
    return [tool for tool in _TOOLS if shutil.which(tool) is None]


class Machine(Host):
    """A host with a name and processes of its own."""

    def __init__(self, number: int, switch: Switch, name: str, folder: Path) -> None:
        init = _INIT.format(folder=folder, name=name)
        kinds = ("--net", "--uts", "--mount", "--pid", "--ipc")
        own = ("unshare", *kinds, "--fork", "--kill-child", "--mount-proc", "sh", "-euc", init)
        super().__init__(number, switch, own)
        self.name = name
        self._daemons: list[subprocess.Popen[bytes]] = []
        wait_for(f"the host {name}", (folder / "run" / name).exists)

    @property
    def place(self) -> list[str]:
        """A command that runs what follows it on this host, with the caller's own view of processes."""
        files = f"/proc/{self.pid}/ns"
        return ["nsenter", f"--net={files}/net", f"--mount={files}/mnt", f"--uts={files}/uts", "--"]

    def daemon(self, *command: str, environment: Mapping[str, str]) -> None:
        """Start a process that lives here, and no longer than the host."""
        files = f"/proc/{self.pid}/ns"
        inner = ["nsenter", f"--pid={files}/pid_for_children", *self.place[1:], *command]
        self._daemons.append(
            subprocess.Popen(
                tied_command(inner, os.getpid(), signal.SIGKILL),
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def close(self) -> None:
        super().close()
        for daemon in self._daemons:
            daemon.kill()
            daemon.wait()


class Cluster:
    """A Slurm that runs. Commands are given on its controller's host, ``ctl``.

    Args:
        folder: for everything that its daemons write; a short path, since a socket lies in it.
    """

    def __init__(self, folder: Path, hosts: int = HOSTS, kill_wait_s: int = KILL_WAIT_S) -> None:
        self.folder = folder
        self._kill_wait_s = kill_wait_s
        self.names = [f"n{number}" for number in range(1, hosts + 1)]
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH"))},
            "SLURM_CONF": str(folder / "slurm.conf"),
        }
        for name in ("run", "state", "spool", "log"):
            (folder / name).mkdir()
        addresses = {name: f"10.77.0.{number}" for number, name in enumerate(["ctl", *self.names], 1)}
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
        (folder / "hosts").write_text("\n".join(lines) + "\n")
        self._switch = Switch()
        self.machines: dict[str, Machine] = {}
        try:
            for number, name in enumerate(addresses, 1):
                self.machines[name] = self._switch.hosts[name] = Machine(number, self._switch, name, folder)
                assert self.machines[name].address == addresses[name]
            self._configure()
            self._start()
        except BaseException:
            self.close()
            raise

    def command(self, *command: str) -> list[str]:
        """A command line that runs something on the submit host, in the folder of this process."""
        return [*self.machines["ctl"].place, "env", f"--chdir={Path.cwd()}", *command]

    def run(self, *command: str, timeout_s: float = 60.0) -> str:
        """What a command on the submit host prints.

        Raises:
            subprocess.CalledProcessError: it failed.
        """
        done = subprocess.run(
            self.command(*command), env=self.environment, capture_output=True, text=True, timeout=timeout_s
        )
        if done.returncode != 0:
            raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
        return done.stdout

    def edldist(self, *words: str, code: int = 0, folder: Path = ROOT) -> str:
        """What the command ``edldist`` prints on the submit host, in a folder, if it ends with that code."""
        done = subprocess.run(
            [*self.machines["ctl"].place, "env", f"--chdir={folder}", *EDLDIST, *words],
            env=self.environment | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def slurm(self) -> SlurmCommands:
        """Its commands, for this process."""

        def run(
            command: Sequence[str], environment: Mapping[str, str], timeout_s: float
        ) -> subprocess.CompletedProcess[str]:
            return run_command(self.command(*command), environment, timeout_s)

        return SlurmCommands(run, self.environment)

    def cut(self, name: str) -> None:
        """Cut a host off from all others."""
        self.machines[name].cut()

    def heal(self, name: str) -> None:
        self.machines[name].heal()

    def await_hosts(self, count: int | None = None, timeout_s: float = 60.0) -> None:
        """Wait until that many hosts can take jobs; all of them by default."""
        wanted = len(self.names) if count is None else count

        def ready() -> bool:
            try:
                said = self.run("sinfo", "-h", "-N", "-p", "steady", "-t", "idle,mixed,alloc", "-o", "%N %t")
            except subprocess.CalledProcessError:
                return False
            return sum(not line.endswith("*") for line in said.splitlines()) >= wanted

        wait_for(f"{wanted} hosts of the cluster in {self.folder}", ready, timeout_s)

    def stop_controller(self) -> None:
        """The controller is gone: commands are not answered, jobs run on."""
        pid = int((self.folder / "run" / "slurmctld.pid").read_text())
        inside = [f"--pid=/proc/{self.machines['ctl'].pid}/ns/pid_for_children", "kill", "-KILL", str(pid)]
        subprocess.run(["nsenter", *inside], check=True)

    def start_controller(self) -> None:
        self.machines["ctl"].daemon("slurmctld", "-D", environment=self.environment)

    def close(self) -> None:
        """End every process of every host, at once."""
        self._switch.close()

    def _configure(self) -> None:
        half = len(self.names) // 2
        nodes, devices = [], []
        for number, name in enumerate(self.names):
            kind = "fast" if number < half else "slow"
            nodes.append(
                f"NodeName={name} NodeAddr={self.machines[name].address} CPUs=4 RealMemory=4000 "
                f"Feature={kind} Gres=accel:{kind}:2 State=UNKNOWN"
            )
            devices.append(f"NodeName={name} Name=accel Type={kind} Count=2")
        settings = _CONF.format(
            folder=self.folder,
            controller=self.machines["ctl"].address,
            nodes="\n".join(nodes),
            kill_wait_s=self._kill_wait_s,
            spot_grace_s=SPOT_GRACE_S,
            silent_s=SILENT_S,
        )
        (self.folder / "slurm.conf").write_text(settings)
        (self.folder / "gres.conf").write_text("\n".join(devices) + "\n")
        key = self.folder / "munge.key"
        subprocess.run(["mungekey", "--create", f"--keyfile={key}"], check=True)
        key.chmod(0o400)

    def _start(self) -> None:
        run, log = self.folder / "run", self.folder / "log"
        controller = self.machines["ctl"]
        controller.daemon(
            *("munged", "--foreground", "--force", f"--key-file={self.folder / 'munge.key'}"),
            *(f"--socket={run / 'munge.socket'}", f"--pid-file={run / 'munged.pid'}"),
            *(f"--log-file={log / 'munged.log'}", f"--seed-file={self.folder / 'munge.seed'}"),
            environment=self.environment,
        )
        wait_for("munged", (run / "munge.socket").exists)
        self.start_controller()
        for name in self.names:
            self.machines[name].daemon("slurmd", "-D", "-N", name, environment=self.environment)
        self.await_hosts()


@contextlib.contextmanager
def slurm_cluster(hosts: int = HOSTS, kill_wait_s: int = KILL_WAIT_S) -> Iterator[Cluster]:
    """A cluster for as long as the context lasts.

    Args:
        kill_wait_s: seconds from a job's SIGTERM to its SIGKILL.
    """
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        Path(folder).chmod(0o755)
        cluster = Cluster(Path(folder), hosts, kill_wait_s)
        try:
            yield cluster
        finally:
            cluster.close()
