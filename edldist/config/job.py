"""A whole job file, and its small sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from edldist.agreement import EVERY_S, LEAST_S, MAX_NATS, MAX_RELATIVE, AgreementBounds
from edldist.bounds import LONGEST_JOB_NAME, LONGEST_TTL_S, LONGEST_WAIT_S, MOST
from edldist.config.kubernetes import KubernetesConfig
from edldist.config.label import LabelConfig
from edldist.config.resources import ResourcesConfig
from edldist.config.section import JOB_NAME, Section, Text, whole
from edldist.config.slurm import SlurmConfig
from edldist.config.store import StoreConfig
from edldist.config.student import StudentConfig
from edldist.config.teacher import TeacherConfig
from edldist.grace import DRAIN_S, KILL_S, STUDENT_S, Grace
from edldist.labels.grammar import parse_spec

__all__ = ["CheckpointConfig", "CoordinatorConfig", "GraceConfig", "JobConfig", "ScriptConfig"]


class CoordinatorConfig(Section):
    """What the job's coordinator is patient about, and how it links workers and students."""

    heartbeat_ttl_s: float = Field(
        default=3.0,
        ge=0.5,
        le=LONGEST_TTL_S,
        allow_inf_nan=False,
        description=f"seconds of silence after which a process counts as lost, from 0.5 to {LONGEST_TTL_S:g}",
    )
    max_students_per_worker: int = Field(default=16, ge=1, le=MOST, description=whole(1, MOST))
    resources: ResourcesConfig = Field(
        default_factory=ResourcesConfig, description="a mapping of what it needs, as in {cpus: 1}"
    )


class CheckpointConfig(Section):
    """When the training script saves, and how many checkpoints stay."""

    every_steps: int | None = Field(default=50, ge=1, le=MOST, description=f"{whole(1, MOST)}, or null")
    keep: int = Field(default=3, ge=1, le=MOST, description=whole(1, MOST))


class AgreementConfig(Section):
    """How far apart the workers of a teacher may be (``edldist.agreement``)."""

    max_nats: float = Field(
        default=MAX_NATS,
        gt=0,
        allow_inf_nan=False,
        description="the most that two distributions may differ: nats, a number above 0",
    )
    max_relative: float = Field(
        default=MAX_RELATIVE,
        gt=0,
        allow_inf_nan=False,
        description="the most that other outputs may differ: a share of their length, a number above 0",
    )
    every_s: float = Field(
        default=EVERY_S,
        ge=LEAST_S,
        le=LONGEST_WAIT_S,
        allow_inf_nan=False,
        description=f"seconds between two comparisons of a worker, from {LEAST_S:g} to {LONGEST_WAIT_S:g}",
    )


def _agreement_kind(value: object) -> str:
    return "bounds" if isinstance(value, Mapping | AgreementConfig) else "off"


Agreement = Annotated[
    Annotated[Literal["off"], Tag("off")] | Annotated[AgreementConfig, Tag("bounds")],
    Discriminator(_agreement_kind),
]


class GraceConfig(Section):
    """How long processes that are asked to leave may take (``edldist.grace``)."""

    drain_s: float = Field(
        default=DRAIN_S,
        ge=0,
        le=LONGEST_WAIT_S,
        allow_inf_nan=False,
        description="seconds for a teacher worker to finish the passes that it has begun",
    )
    student_s: float = Field(
        default=STUDENT_S,
        ge=0,
        le=LONGEST_WAIT_S,
        allow_inf_nan=False,
        description="seconds for the ranks of a node to save a checkpoint and to end",
    )
    kill_s: float = Field(
        default=KILL_S,
        ge=0,
        le=LONGEST_WAIT_S,
        allow_inf_nan=False,
        description="seconds after which whoever asks them to leave kills them",
    )

    @model_validator(mode="after")
    def _follow_each_other(self) -> GraceConfig:
        _ = self.times
        return self

    @property
    def times(self) -> Grace:
        return Grace(self.drain_s, self.student_s, self.kill_s)


class ScriptConfig(Section):
    """A script that runs once, before everything else."""

    script: str = Field(min_length=1, description="the path of a Python script")
    args: list[Text] = Field(default=[], description="a list of text and numbers")


class JobConfig(Section):
    """A whole job file."""

    name: str = Field(
        pattern=JOB_NAME,
        max_length=LONGEST_JOB_NAME,
        description=f"up to {LONGEST_JOB_NAME} letters, digits, `_`, `.` and `-`, "
        "the first a letter, digit or `_`",
    )
    teachers: list[TeacherConfig] = Field(min_length=1, description="a list of one teacher or more")
    student: StudentConfig = Field(description="a mapping with `script`")
    store: StoreConfig | None = Field(
        default=None, description="a mapping with `path`, of where labels are kept, or null"
    )
    label: LabelConfig | None = Field(
        default=None, description="a mapping with `data`, of what edldist label labels, or null"
    )
    checkpoint: CheckpointConfig = Field(
        default_factory=CheckpointConfig, description="a mapping, as in {every_steps: 50, keep: 3}"
    )
    coordinator: CoordinatorConfig = Field(
        default_factory=CoordinatorConfig, description="a mapping, as in {heartbeat_ttl_s: 3}"
    )
    grace: GraceConfig = Field(
        default_factory=GraceConfig,
        description="a mapping, as in {drain_s: 20, student_s: 25, kill_s: 30}",
    )
    agreement: Agreement = Field(
        default_factory=AgreementConfig, description="a mapping, as in {max_nats: 0.1, every_s: 60}, or off"
    )
    deterministic: bool = Field(default=False, description="true or false")
    on_poison: Literal["raise", "skip"] = Field(default="raise", description="raise or skip")
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] | None = Field(
        default=None,
        description="a list of tensorboard, wandb and mlflow, or null for those whose variables are set",
    )
    prepare: ScriptConfig | None = Field(default=None, description="a mapping with `script`, or null")
    slurm: SlurmConfig | None = Field(
        default=None, description="a mapping of what a Slurm cluster wants to know, or null"
    )
    kubernetes: KubernetesConfig | None = Field(
        default=None, description="a mapping of what a Kubernetes cluster wants to know, or null"
    )

    @field_validator("teachers")
    @classmethod
    def _unique_names(cls, teachers: list[TeacherConfig]) -> list[TeacherConfig]:
        names = [teacher.name for teacher in teachers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"every teacher needs a name of its own; given twice: {', '.join(twice)}")
        if taken := sorted({"coordinator", "prepare", "student"} & set(names)):
            raise ValueError(f"{taken[0]} is the name of another role; commands could not tell them apart")
        return teachers

    @model_validator(mode="after")
    def _cuts_are_known(self) -> JobConfig:
        if self.deterministic and any(teacher.batch_size == "auto" for teacher in self.teachers):
            raise ValueError(
                "deterministic: true cuts batches at the teacher's batch_size, which must then be a number "
                "and not auto: what auto finds depends on the machine"
            )
        return self

    @model_validator(mode="after")
    def _data_of_a_store_is_named(self) -> JobConfig:
        by_number = [teacher.name for teacher in self.teachers if teacher.dataset is not None]
        if self.store is not None and by_number and not self.store.data:
            raise ValueError(
                f"store: teacher `{by_number[0]}` reads samples by their numbers from a dataset, so labels "
                "are kept by number: say in store.data which data set, and which version of it, these are of"
            )
        return self

    @model_validator(mode="after")
    def _places_are_of_teachers(self) -> JobConfig:
        names = [teacher.name for teacher in self.teachers]
        for key, cluster in (("slurm", self.slurm), ("kubernetes", self.kubernetes)):
            strangers = (cluster.teachers.keys() if cluster is not None else set()) - set(names)
            if strangers:
                raise ValueError(
                    f"{key}.teachers: there is no teacher `{min(strangers)}`; there are {', '.join(names)}"
                )
        return self

    @model_validator(mode="after")
    def _degradations_are_teachers(self) -> JobConfig:
        names = [teacher.name for teacher in self.teachers]
        entries = self.student.degrade
        to = [each.teacher for each in entries if each.teacher is not None]
        if entries and self.deterministic:
            raise ValueError(
                "student.degrade: which batches a cheaper teacher or a smaller codec labels is a matter of "
                "timing, so results would depend on it: leave it out with deterministic: true"
            )
        if strangers := sorted(set(to) - set(names)):
            raise ValueError(
                f"student.degrade: there is no teacher `{strangers[0]}`; there are {', '.join(names)}"
            )
        if len(set(to)) != len(to) or (to and len(to) >= len(names)):
            raise ValueError(
                "student.degrade: name other teachers than the one that the script asks, each once"
            )
        of: TeacherConfig | None = self.teachers[0] if len(names) == 1 else None
        codecs: set[str] = set()
        for each in entries:
            if each.teacher is not None:
                of, codecs = self.teachers[names.index(each.teacher)], set()
                continue
            assert each.codec is not None
            written = str(parse_spec(each.codec))
            if written in codecs or (of is not None and written == str(parse_spec(of.codec))):
                raise ValueError(f"student.degrade: labels come as {each.codec} before that entry, too")
            codecs.add(written)
        return self

    @property
    def served(self) -> list[TeacherConfig]:
        """The teachers of which workers are started: none where all labels come from the store."""
        return [] if self.store is not None and self.store.only else self.teachers

    @property
    def agreement_text(self) -> str:
        """The section as ``AgreementBounds`` reads it."""
        if self.agreement == "off":
            return "off"
        bounds = self.agreement
        return AgreementBounds(bounds.max_nats, bounds.max_relative, bounds.every_s).text

    @property
    def task_size(self) -> int | None:
        """Samples of a fixed cut: as many as every teacher takes in one pass; None unless deterministic."""
        sizes = [teacher.batch_size for teacher in self.teachers if isinstance(teacher.batch_size, int)]
        return min(sizes) if self.deterministic else None
