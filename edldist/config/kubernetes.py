"""The section ``kubernetes``: what only that kind of cluster asks for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from edldist.bounds import LONGEST_WAIT_S
from edldist.config.resources import MEMORY_FORM, memory_bytes
from edldist.config.section import ONLY_THESE_NAMES, TEACHER_NAME, Section

__all__ = [
    "KubernetesConfig",
    "PlacementConfig",
    "TeacherPlacementConfig",
    "TolerationConfig",
    "VolumeConfig",
]

LABEL = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
SUBDOMAIN = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"
IMAGE = r"^[A-Za-z0-9][^\s]{0,500}$"
KEY = r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$"
VALUE = r"^([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?$"
FOLDER = r"^/[^\s:]*$"
_NAME = "a name of lower-case letters, digits and `-`"
_SUBNAME = "a name of lower-case letters, digits, `-` and `.`"
_NONE = '"" for none, or null'
_Name = Annotated[str, Field(pattern=SUBDOMAIN)]
_Labels = Annotated[
    dict[Annotated[str, Field(pattern=KEY)], Annotated[str, Field(pattern=VALUE)]],
    Field(json_schema_extra=ONLY_THESE_NAMES),
]
_Annotations = Annotated[
    dict[Annotated[str, Field(pattern=KEY)], str], Field(json_schema_extra=ONLY_THESE_NAMES)
]


class TolerationConfig(Section):
    """A taint of nodes that pods put up with; without a key, of every key."""

    key: str | None = Field(default=None, pattern=KEY, description="the key of a taint, or null for all keys")
    operator: Literal["Exists", "Equal"] = Field(default="Exists", description="Exists or Equal")
    value: str | None = Field(
        default=None, pattern=VALUE, description="the taint's value, with Equal, or null"
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="NoSchedule, PreferNoSchedule, NoExecute, or null for all"
    )

    @model_validator(mode="after")
    def _a_value_to_compare(self) -> TolerationConfig:
        if (self.operator == "Equal") != (self.value is not None):
            raise ValueError("operator: Equal compares a value, Exists none: give both or neither")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("operator: Equal compares the value of a key: give key, too")
        return self


class VolumeConfig(Section):
    """A part of a claim, and where pods see it."""

    path: str = Field(pattern=FOLDER, description="a folder's whole path in the container, as in `/data`")
    claim: str | None = Field(
        default=None,
        pattern=SUBDOMAIN,
        description="the name of a PersistentVolumeClaim that is there, or null for the job's output folder",
    )
    sub_path: str | None = Field(
        default=None,
        pattern=r"^[^/\s][^\s]*$",
        description="a folder in the claim, or null for the whole",
    )
    read_only: bool = Field(default=True, description="true or false")


class PlacementConfig(Section):
    """How pods of one role differ from the job's others.

    What is null is as for the whole job; an empty text, list or mapping is nothing at all, whatever the whole
    job has.
    """

    image: str | None = Field(default=None, pattern=IMAGE, description="the name of an image, or null")
    node_selector: _Labels | None = Field(
        default=None, description="a mapping of nodes' labels to values, or null"
    )
    tolerations: list[TolerationConfig] | None = Field(
        default=None, description="a list, as in [{key: dedicated}], or null"
    )
    gpu_resource: str | None = Field(
        default=None, pattern=KEY, description="what nodes call their GPUs, as in `nvidia.com/gpu`, or null"
    )
    gpu_label: str | None = Field(
        default=None,
        pattern=f"^$|{KEY}",
        description="the nodes' label that tells a GPU's type, as in `nvidia.com/gpu.product`, "
        '"" where no type is asked for, or null',
    )
    priority_class: str | None = Field(
        default=None, pattern=f"^$|{SUBDOMAIN}", description=f"{_SUBNAME}, {_NONE}"
    )
    queue: str | None = Field(
        default=None, pattern=f"^$|{LABEL}", description=f"a queue of Kueue's ({_NAME}), {_NONE}"
    )
    secrets: list[_Name] | None = Field(
        default=None, description="a list of Secrets whose keys become variables, or null"
    )
    volumes: list[VolumeConfig] | None = Field(
        default=None, description="a list, as in [{path: /data, claim: images}], or null"
    )
    annotations: _Annotations | None = Field(default=None, description="a mapping of names to text, or null")

    @field_validator("volumes")
    @classmethod
    def _different_paths(cls, volumes: list[VolumeConfig] | None) -> list[VolumeConfig] | None:
        paths = [volume.path for volume in volumes or []]
        if len(set(paths)) != len(paths):
            raise ValueError("two volumes have the same path")
        return volumes


class TeacherPlacementConfig(PlacementConfig):
    """How the pods of one teacher group differ from the job's others."""

    spot: bool | None = Field(
        default=None,
        description="true (on machines that may be taken away), false, or null as for all teachers",
    )


class KubernetesConfig(PlacementConfig):
    """What holds for the whole job, and where its roles differ."""

    image: str = Field(
        default="edldist:latest",
        pattern=IMAGE,
        description="the name of an image that has edldist and the job",
    )
    gpu_resource: str = Field(
        default="nvidia.com/gpu",
        pattern=KEY,
        description="what nodes call their GPUs, as in `nvidia.com/gpu`",
    )
    gpu_label: str = Field(
        default="nvidia.com/gpu.product",
        pattern=KEY,
        description="the nodes' label that tells a GPU's type, as in `nvidia.com/gpu.product`",
    )
    context: str | None = Field(
        default=None, min_length=1, description="a context of the kubeconfig, or null for the current one"
    )
    namespace: str | None = Field(
        default=None, pattern=LABEL, description=f"{_NAME}, or null for that of the context"
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        default="IfNotPresent", description="Always, IfNotPresent or Never"
    )
    pull_secrets: list[_Name] = Field(default=[], description="a list of names of Secrets")
    workdir: str = Field(
        default="/job",
        pattern=FOLDER,
        description="the folder in the image that holds what the current folder holds here",
    )
    claim: str | None = Field(
        default=None,
        pattern=SUBDOMAIN,
        description="a PersistentVolumeClaim that is there, for the job's output, or null to make one",
    )
    storage_class: str | None = Field(
        default=None,
        pattern=SUBDOMAIN,
        description="of the claim that is made, or null for the cluster's default",
    )
    storage_access: Literal["ReadWriteMany", "ReadWriteOnce"] = Field(
        default="ReadWriteMany",
        description="of the claim that is made: ReadWriteMany, or ReadWriteOnce where there is one node",
    )
    storage_size: str = Field(
        default="10GiB",
        description=f"of the claim that is made: {MEMORY_FORM}",
        json_schema_extra={"pattern": r"^([1-9]\d{0,8})(MiB|GiB|TiB)$"},
    )
    object_store: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9+.-]*://\S+$",
        description="a URL for checkpoints, as in `s3://bucket/run`, or null for the claim",
    )
    service_account: str | None = Field(
        default=None, pattern=SUBDOMAIN, description=f"{_SUBNAME}, or null; its token is not mounted"
    )
    spot: bool = Field(
        default=False, description="true (teachers on machines that may be taken away) or false"
    )
    autoscaler: Literal["keda"] | None = Field(
        default=None,
        description="keda (for teachers whose replicas are a range), or null for `edldist scale`",
    )
    autoscaler_namespace: str = Field(default="keda", pattern=LABEL, description=_NAME)
    monitor: bool = Field(default=False, description="true (for the Prometheus operator) or false")
    monitor_namespace: str = Field(default="monitoring", pattern=LABEL, description=_NAME)
    network_policy: bool = Field(default=True, description="true or false")
    keep_s: int | None = Field(
        default=900,
        ge=0,
        le=int(LONGEST_WAIT_S),
        description=f"seconds, up to {LONGEST_WAIT_S:g}, that an ended job stays, without its teachers, "
        "before Kubernetes removes it, all but its claim, or null for until `edldist stop`",
    )
    coordinator: PlacementConfig = Field(
        default_factory=PlacementConfig,
        description="a mapping of where it differs, as in {priority_class: high}",
    )
    student: PlacementConfig = Field(
        default_factory=PlacementConfig, description="a mapping of where it differs, as in {queue: training}"
    )
    prepare: PlacementConfig = Field(
        default_factory=PlacementConfig, description="a mapping of where it differs, as in {queue: short}"
    )
    teachers: Annotated[
        dict[Annotated[str, Field(pattern=TEACHER_NAME)], TeacherPlacementConfig],
        Field(json_schema_extra=ONLY_THESE_NAMES),
    ] = Field(
        default={}, description="a mapping of teachers to where they differ, as in {teacher: {spot: true}}"
    )

    @field_validator("storage_size")
    @classmethod
    def _an_amount(cls, size: str) -> str:
        memory_bytes(size)
        return size

    @model_validator(mode="after")
    def _one_place_for_output(self) -> KubernetesConfig:
        if self.claim is not None and self.storage_class is not None:
            raise ValueError(
                f"storage_class is of a claim that is made; {self.claim} is there: give one of them"
            )
        return self

    def of(self, kind: str, name: str) -> PlacementConfig:
        """Where a role's pods go: its own keys over those of the whole job.

        Args:
            kind: prepare, coordinator, teacher or student.
            name: of the teacher group.
        """
        own: PlacementConfig = (
            self.teachers.get(name, PlacementConfig()) if kind == "teacher" else getattr(self, kind)
        )
        mine = {key: getattr(own, key) for key in PlacementConfig.model_fields}
        values = {key: getattr(self, key) if value is None else value for key, value in mine.items()}
        return PlacementConfig(**{key: None if value == "" else value for key, value in values.items()})

    def on_spot(self, teacher: str) -> bool:
        """Whether the workers of a group may be on machines that are taken away at short notice."""
        own = self.teachers.get(teacher)
        return self.spot if own is None or own.spot is None else own.spot
