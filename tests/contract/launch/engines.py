"""The engines that keep the launch contract, and the job that is run on each of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from edldist.config import JobConfig
from edldist.errors import EdlDistError, LaunchError
from edldist_launch.contract.backend import Backend, JobState
from edldist_launch.kubernetes.backend import KubernetesBackend
from edldist_launch.kubernetes.names import Names
from edldist_launch.kubernetes.render import LAUNCHER
from edldist_launch.local.backend import LocalBackend
from edldist_launch.plan.plan import Plan
from edldist_launch.slurm.backend import SlurmBackend

__all__ = ["ENGINES", "Engine", "write_scripts"]

# Waits until it is told to finish, or to stop; with `stubborn` it heeds neither.
STUDENT = """
import os, signal, sys, time
from pathlib import Path
finish = Path(os.environ["EDLDIST_OUTPUT"]) / "finish"
stops = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *about: stops.append(about))
print("the student is here", flush=True)
while "stubborn" in sys.argv or not (stops or finish.exists()):
    time.sleep(0.05)
if not finish.exists():
    print("the student saves", flush=True)
    sys.exit(130)
print("the student is done", flush=True)
"""
MODELS = """
def teacher():
    return lambda x: x
"""


class Engine(Protocol):
    """An engine as these tests see it."""

    patience_s: float
    """How long it may take until what was asked for is there."""

    soon_s: float
    """Within that a job has been stopped whose student is not waited for."""

    keeps_logs: bool
    """Whether there are logs of processes that left while the job goes on."""

    def backend(self, output: Path) -> Backend:
        """The backend of the job in a folder."""

    def plan(self, folder: Path, output: Path, **changes: Any) -> Plan:
        """A plan of the job whose scripts lie in ``folder``.

        Args:
            changes: sections of the job file.
        """

    def refused(self, folder: Path, output: Path) -> tuple[Plan, type[EdlDistError], str]:
        """A plan that this engine refuses when it is handed over, with which error, and its words."""

    def left_behind(self, output: Path) -> list[str]:
        """What of a job the engine still has: processes, objects."""

    def address(self, state: JobState) -> str:
        """The coordinator's address, as the job's own processes know it."""

    def finish(self, output: Path) -> None:
        """Let the job's student come to its end."""

    def close(self) -> None:
        """Nothing of the engine is left."""


def write_scripts(folder: Path) -> None:
    """The files of the job."""
    (folder / "models.py").write_text(MODELS)
    (folder / "student.py").write_text(STUDENT)


def toy_job(**changes: Any) -> JobConfig:
    """The job: one to three workers, one node."""
    return JobConfig.model_validate(
        {
            "name": "toy",
            "teachers": [{"name": "t", "model": "models:teacher", "replicas": {"min": 1, "max": 3}}],
            "student": {"script": "student.py"},
        }
        | changes
    )


class _OneFileSystem:
    """What is alike where a job's processes see this machine's files and know its addresses."""

    soon_s = 25.0  # the student would have 30
    keeps_logs = True

    def address(self, state: JobState) -> str:
        return str(state.coordinator)

    def finish(self, output: Path) -> None:
        (output / "finish").touch()


class LocalEngine(_OneFileSystem):
    """This machine."""

    patience_s = 60.0

    def backend(self, output: Path) -> Backend:
        return LocalBackend(output)

    def plan(self, folder: Path, output: Path, **changes: Any) -> Plan:
        job = toy_job(**changes)
        script = {"script": str(folder / job.student.script)}
        return Plan(job.model_copy(update={"student": job.student.model_copy(update=script)}), folder, output)

    def refused(self, folder: Path, output: Path) -> tuple[Plan, type[EdlDistError], str]:
        from edldist.errors import ConfigError

        many = [{"name": "t", "model": "models:teacher", "replicas": 9_999}]
        return self.plan(folder, output, teachers=many), ConfigError, "this machine has no room for"

    def left_behind(self, output: Path) -> list[str]:
        import psutil

        found = []
        for process in psutil.process_iter():
            try:
                if str(output) in process.environ().values() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue
        return found

    def close(self) -> None:
        pass


class SlurmEngine(_OneFileSystem):
    """A Slurm of six hosts, on which jobs that are cancelled are killed soon."""

    patience_s = 120.0

    def __init__(self) -> None:
        from tests.clusters.slurm.cluster import require_slurm, slurm_cluster

        require_slurm()
        self._resources = contextlib.ExitStack()
        self._cluster = self._resources.enter_context(slurm_cluster(kill_wait_s=5))

    def close(self) -> None:
        self._resources.close()

    def backend(self, output: Path) -> Backend:
        return SlurmBackend(output, slurm=self._cluster.slurm())

    def plan(self, folder: Path, output: Path, **changes: Any) -> Plan:
        job = toy_job(**{"slurm": {"poll_s": 0.5}, **changes})
        script = {"script": str(folder / job.student.script)}
        return Plan(job.model_copy(update={"student": job.student.model_copy(update=script)}), folder, output)

    def refused(self, folder: Path, output: Path) -> tuple[Plan, type[EdlDistError], str]:
        section = {"student": {"partition": "nowhere"}}
        return self.plan(folder, output, slurm=section), LaunchError, "invalid partition specified: nowhere"

    def left_behind(self, output: Path) -> list[str]:
        return self._cluster.run("squeue", "-h", "-a", "-o", "%i %j %T").splitlines()


class KubernetesEngine:
    """A Kubernetes of one node, with a namespace for every folder; a pod's logs go with the pod."""

    patience_s = 300.0
    soon_s = 240.0  # the student would have 300
    keeps_logs = False

    def __init__(self) -> None:
        from tests.clusters.kubernetes.cluster import shared_cluster

        self._cluster = shared_cluster()
        self._resources = contextlib.ExitStack()
        self._resources.enter_context(self._cluster.chosen())
        self._backends: dict[Path, KubernetesBackend] = {}
        self._volumes: dict[Path, Path] = {}

    def close(self) -> None:
        self._resources.close()

    def backend(self, output: Path) -> Backend:
        return self._backends.setdefault(output, KubernetesBackend(output))  # each has a way of its own there

    def plan(self, folder: Path, output: Path, **changes: Any) -> Plan:
        from tests.clusters.kubernetes.cluster import IMAGE

        if output not in self._volumes:
            self._volumes[output] = self._cluster.room(f"toy-{len(self._volumes)}", "toy-output")
        section = {"image": IMAGE, "pull_policy": "Never", "namespace": self._volumes[output].name}
        more = changes.pop("kubernetes", {})
        job = toy_job(kubernetes=section | more, grace={"student_s": 300, "kill_s": 330}, **changes)
        script = {"script": f"/job/{job.student.script}"}
        job = job.model_copy(update={"student": job.student.model_copy(update=script)})
        return Plan(job, Path("/job"), Path(Names("toy").output), LAUNCHER)

    def refused(self, folder: Path, output: Path) -> tuple[Plan, type[EdlDistError], str]:
        from edldist.errors import ConfigError

        section = {"storage_class": "nowhere"}
        return self.plan(folder, output, kubernetes=section), ConfigError, '"nowhere" not found'

    def left_behind(self, output: Path) -> list[str]:
        kinds = "pods,jobs,deployments,services,configmaps,secrets,networkpolicies,poddisruptionbudgets"
        about = ("--selector", "edldist/job=toy", "--output", "name")
        return self._cluster.kubectl("get", kinds, "-n", self._volumes[output].name, *about).splitlines()

    def address(self, state: JobState) -> str:
        return "tcp://toy-coordinator:7070"

    def finish(self, output: Path) -> None:
        (self._volumes[output] / "toy" / "finish").touch()


ENGINES: dict[str, Callable[[], Engine]] = {
    "kubernetes": KubernetesEngine,
    "local": LocalEngine,
    "slurm": SlurmEngine,
}
"""What makes an engine ready, or skips with the reason why it cannot be had here."""
