"""What a job consists of, for whoever places it: this machine, Slurm or Kubernetes. Pure.

A plan is made once from a resolved job file: which roles there are, with which variables and resources, how
many processes each may have, and what each of them runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edldist.bounds import node_range
from edldist.config import JobConfig, ReplicaRange, ResourcesConfig, TeacherConfig
from edldist.errors import ConfigError
from edldist.reference import in_folder
from edldist_launch.plan import commands

__all__ = ["Kind", "Plan", "Replicas", "Role"]

Kind = Literal["prepare", "coordinator", "teacher", "student"]


@dataclass(frozen=True)
class Replicas:
    """How many processes of a role there are: at least, at first and at most. If all agree, nobody scales."""

    min: int = 1
    initial: int = 1
    max: int = 1


@dataclass(frozen=True)
class Role:
    """Processes that are placed alike.

    Attributes:
        name: of the teacher group; of other roles their kind.
        replicas: teacher workers or student nodes.
        resources: of each.
        environment: variables of the job file, over those that the engine's processes have anyway.
    """

    kind: Kind
    name: str
    replicas: Replicas = Replicas()
    resources: ResourcesConfig = ResourcesConfig()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """Everything that is placed for one job.

    Attributes:
        job: resolved for the place where it runs.
        beside: the folder of the job file, from which models and scripts may import.
        output: the folder for everything written.
        launcher: the words that start ``edldist`` there, see ``commands``.
        extend: whether the students go on from a checkpoint though its labels came from another teacher.

    The paths are those that the placed processes see.
    """

    job: JobConfig
    beside: Path
    output: Path
    launcher: Sequence[str] = field(default_factory=commands.own_launcher)
    extend: bool = False

    @property
    def name(self) -> str:
        return self.job.name

    @property
    def roles(self) -> tuple[Role, ...]:
        """In the order in which they are needed."""
        job, student = self.job, self.job.student
        least, most = node_range(student.nnodes)
        return (
            *((Role("prepare", "prepare"),) if job.prepare is not None else ()),
            Role("coordinator", "coordinator", resources=job.coordinator.resources),
            *(
                Role("teacher", teacher.name, _replicas(teacher), teacher.resources, teacher.env)
                for teacher in job.served
            ),
            Role("student", "student", Replicas(least, most, most), student.resources, student.env),
        )

    @property
    def ranks(self) -> int:
        """Training processes of all student nodes at first."""
        return self.role("student").replicas.initial * self.job.student.ranks

    @property
    def processes(self) -> dict[str, int]:
        """How many processes start at first, by the keys that ask for them."""
        student = self.job.student
        asked = f"student (nnodes: {student.nnodes}, nproc_per_node: {student.ranks})"
        groups = enumerate(self.job.served)
        return {
            **{f"teachers[{number}].replicas": teacher.initial_replicas for number, teacher in groups},
            asked: self.ranks,
        }

    def role(self, name: str) -> Role:
        """The role that somebody means to scale, or to read the logs of.

        Raises:
            ConfigError: the job has none of that name.
        """
        for role in self.roles:
            if role.name == name:
                return role
        names = ", ".join(role.name for role in self.roles)
        raise ConfigError(f"job {self.name} has no role `{name}`: it has {names}")

    def check_scale(self, name: str, wanted: int) -> None:
        """Refuse a number of processes that a role may not have.

        Raises:
            ConfigError: there is no such role, nobody scales it, or the number is out of its bounds.
        """
        role = self.role(name)
        if role.kind not in ("teacher", "student"):
            raise ConfigError(
                f"{name}={wanted}: a job has one {role.kind}; teacher workers and nodes are scaled"
            )
        bounds = role.replicas
        if not bounds.min <= wanted <= bounds.max:
            key = "student.nnodes" if role.kind == "student" else f"replicas of teacher {name}"
            raise ConfigError(
                f"{name}={wanted}: {key} allows {bounds.min} to {bounds.max}; "
                "a range in the job file, as in "
                + ('nnodes: "1:4"' if role.kind == "student" else "replicas: {min: 1, max: 8}")
                + ", lets it move"
            )

    # --- what the processes run ---------------------------------------------------------------

    def coordinator_command(
        self,
        bind: str,
        http: str,
        address_file: Path | None = None,
        history_file: Path | None = None,
        stages_file: Path | None = None,
        output: Path | None = None,
        job_file: Path | None = None,
    ) -> list[str]:
        """The coordinator, see ``commands.coordinator_command``."""
        return commands.coordinator_command(
            self.launcher,
            self.job,
            bind,
            http,
            address_file=address_file,
            history_file=history_file,
            stages_file=stages_file,
            output=output,
            job_file=job_file,
        )

    def prepare_command(self, interpreter: str) -> list[str]:
        """The job's own preparation, see ``commands.prepare_command``."""
        assert self.job.prepare is not None
        return commands.prepare_command(interpreter, self.job.prepare)

    def teacher_command(
        self,
        teacher: TeacherConfig,
        worker_id: str,
        coordinator: str,
        http: str | None = None,
        attempt: int | str = 0,
        output: str | None = None,
    ) -> list[str]:
        """A worker, as its section (of ``job.teachers``, with the device that it gets) says.

        Args:
            output: what students find in ``EDLDIST_OUTPUT``, where that is not the plan's ``output``.
        """
        drain_s = self.job.grace.drain_s
        if teacher.weights is not None:
            weights = in_folder(teacher.weights, output or str(self.output))
            teacher = teacher.model_copy(update={"weights": weights})
        return commands.teacher_command(
            self.launcher, teacher, worker_id, coordinator, self.beside, http, drain_s, attempt
        )

    def student_command(self, coordinator: str, http: str | None = None) -> list[str]:
        """A student node."""
        student, grace_s = self.job.student, self.job.grace.student_s
        return commands.student_command(self.launcher, student, coordinator, self.beside, http, grace_s)

    def wait_command(self, coordinator: str, given_up_file: Path | None = None) -> list[str]:
        """What runs until the students have ended, or will never begin, see ``commands.wait_command``."""
        return commands.wait_command(self.launcher, coordinator, given_up_file)

    def student_environment(self, coordinator: str) -> dict[str, str]:
        """What the training script finds, the job file's own variables with it."""
        return commands.student_environment(self.job, coordinator, self.output, self.extend)

    def teacher(self, group: str) -> TeacherConfig:
        """The section of a teacher group.

        Raises:
            ConfigError: the job has none of that name.
        """
        for teacher in self.job.teachers:
            if teacher.name == group:
                return teacher
        raise ConfigError(
            f"job {self.name} has no teacher `{group}`: it has "
            + ", ".join(teacher.name for teacher in self.job.teachers)
        )


def _replicas(teacher: TeacherConfig) -> Replicas:
    """The bounds of a teacher group: those of a range, or a number that stands."""
    bounds = teacher.replicas
    if isinstance(bounds, ReplicaRange):
        return Replicas(bounds.min, teacher.initial_replicas, bounds.max)
    return Replicas(bounds, bounds, bounds)
