"""What a job is called in Slurm's queue, and where its processes leave what others read. Pure.

Everything lies in the job's output folder, which all hosts see::

    keys/                      of each role, where they were made with the job (``contract.job_keys``)
    logs/teacher-3/0/log       what the first attempt of a process wrote (the next one gets a folder 1)
    logs/slurm/                what Slurm itself says about its jobs
    slurm/teacher.big.sh       the job script of a role
    slurm/coordinator.json     where the coordinator listens now
    slurm/ended/teacher-3      the exit code of a process that will not come back by itself
    slurm/wanted.json          how many processes of a role there should be, for who asks
    slurm/stop                 there once somebody asked the job to end
    slurm/placer.json          which placer is in charge
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from edldist_launch.plan.plan import Kind, Plan, Role

__all__ = ["Layout", "process_id"]


def process_id(role: Role, index: int) -> str:
    """What a process is called in the job: ``big-3``, ``student-0``, ``coordinator``."""
    return f"{role.name}-{index}" if role.kind in ("teacher", "student") else role.name


@dataclass(frozen=True)
class Layout:
    """The names and places of one job.

    Attributes:
        job: its name.
        output: its folder, as all hosts see it.
    """

    job: str
    output: Path

    @classmethod
    def of(cls, plan: Plan) -> Layout:
        return cls(plan.name, plan.output)

    def queue_name(self, kind: Kind, name: str) -> str:
        """What the jobs of a role are called in the queue.

        Two jobs of one name have different folders, and so different names here: a coordinator waits for
        the end of every other that has its name.
        """
        token = hashlib.sha256(str(self.output).encode()).hexdigest()[:8]
        return f"{self.job}-{token}.{_dotted(kind, name)}"

    def script(self, kind: Kind, name: str) -> Path:
        return self.folder / f"{_dotted(kind, name)}.sh"

    @property
    def folder(self) -> Path:
        return self.output / "slurm"

    @property
    def slurm_logs(self) -> Path:
        return self.output / "logs" / "slurm"

    @property
    def address_file(self) -> Path:
        return self.folder / "coordinator.json"

    @property
    def coordinator(self) -> str:
        """What members are told of the coordinator."""
        return f"file:{self.address_file}"

    @property
    def ended(self) -> Path:
        return self.folder / "ended"

    @property
    def wanted_file(self) -> Path:
        return self.folder / "wanted.json"

    @property
    def stop_file(self) -> Path:
        return self.folder / "stop"

    @property
    def placer_file(self) -> Path:
        return self.folder / "placer.json"

    def log_folder(self, process: str) -> Path:
        """Holds a folder for each attempt."""
        return self.output / "logs" / process


def _dotted(kind: Kind, name: str) -> str:
    return f"teacher.{name}" if kind == "teacher" else kind
