"""A job on a fake Slurm cluster, for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edldist.clock import FakeClock
from edldist.config import load_job
from edldist_launch.plan.plan import Plan
from edldist_launch.slurm.backend import SlurmBackend
from edldist_launch.slurm.files import JobFiles
from edldist_launch.slurm.layout import Layout
from tests.unit.fake_slurm import FakeSlurm
from tests.unit.jobs import MINIMAL

JOB = ["teachers.0.replicas={min: 2, max: 8}", "student.nnodes=1:2", "prepare={script: p.py}"]


class Job:
    """A job in a folder, on a fake cluster on which something happens whenever the backend waits."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        (folder / "given.yaml").write_text(MINIMAL)
        self.output = folder / "out"
        self.plan = Plan(load_job(folder / "given.yaml", [*JOB, *overrides]), folder, self.output)
        self.slurm = FakeSlurm()
        self.clock = FakeClock()
        self.meanwhile: Callable[[], object] = lambda: None
        self.backend = self.found()
        self.files = JobFiles(Layout.of(self.plan))

    def found(self) -> SlurmBackend:
        """By another process."""
        return SlurmBackend(self.output, slurm=self.slurm, wait=self.wait, clock=self.clock)

    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.meanwhile()

    def start(self) -> None:
        self.backend.start(self.plan)

    def leave(self, process: str, code: int) -> None:
        (self.files.layout.ended / process).write_text(f"{code}\n")

    def write(self, process: str, text: str) -> None:
        """Into the log of its first start."""
        log = self.files.layout.log_folder(process) / "0" / "log"
        log.parent.mkdir(parents=True)
        log.write_text(text)

    def roles(self) -> dict[str, list[tuple[str, str, str]]]:
        return {
            role.name: [(p.id, p.engine_id, p.phase) for p in role.processes]
            for role in self.found().state().roles
        }
