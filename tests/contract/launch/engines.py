"""The engines that keep the launch contract, and the job that is run on each of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from edldist.config import JobConfig
from edldist.errors import EdlDistError, LaunchError
from edldist_launch.contract.backend import Backend
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


class LocalEngine:
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


class SlurmEngine:
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


ENGINES: dict[str, Callable[[], Engine]] = {"local": LocalEngine, "slurm": SlurmEngine}
"""What makes an engine ready, or skips with the reason why it cannot be had here."""
