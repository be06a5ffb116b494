"""The section of a teacher group."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, JsonValue, PlainValidator, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError

from edldist.bounds import MOST, MOST_THREADS, MOST_WORKERS
from edldist.config.resources import ResourcesConfig
from edldist.config.section import ONLY_THESE_NAMES, TEACHER_NAME, VARIABLE, Environment, Section, whole
from edldist.errors import CodecError, ConfigError
from edldist.labels.fingerprint import VERSION_FORM, check_version
from edldist.labels.grammar import CODEC_FORMS, GRAMMAR, parse_spec
from edldist.reference import FACTORY, MODEL, MODEL_FORMS, is_engine, place_of

__all__ = ["ReplicaRange", "TeacherConfig", "check_codec_name"]

DEVICE = r"^[a-z]+(:\d+)?$"
OUTPUT_NAME = r"^[^\s,]+$"
LONGEST_SETTINGS = 1_000
_Count = Annotated[int, Field(ge=1, le=MOST)]
_Position = Annotated[int, Field(ge=0, le=MOST)]


def check_codec_name(name: str) -> str:
    """The codec's name, unchanged, if it is one that this version has.

    Raises:
        ValueError: it is not; the message lists the forms that are.
    """
    try:
        parse_spec(name)
    except CodecError as exc:
        raise ValueError(str(exc)) from exc
    return name


class ReplicaRange(Section):
    """Bounds between which the number of a teacher's workers may move, and with how many it begins."""

    min: int = Field(ge=0, le=MOST_WORKERS, description=whole(0, MOST_WORKERS))
    max: int = Field(ge=1, le=MOST_WORKERS, description=whole(1, MOST_WORKERS))
    start: int | None = Field(
        default=None, ge=1, le=MOST_WORKERS, description=f"{whole(1, MOST_WORKERS)}, or null for min"
    )

    @model_validator(mode="after")
    def _ordered(self) -> ReplicaRange:
        if self.min > self.max:
            raise ValueError(f"min must not exceed max, and {self.min} exceeds {self.max}")
        if self.start is not None and not self.min <= self.start <= self.max:
            raise ValueError(f"start {self.start} is not within min {self.min} and max {self.max}")
        return self

    @property
    def initial(self) -> int:
        """Workers to start with: at least one."""
        return max(1, self.min) if self.start is None else self.start


def _replicas_kind(value: object) -> str:
    return "range" if isinstance(value, Mapping | ReplicaRange) else "count"


Replicas = Annotated[
    Annotated[int, Field(ge=1, le=MOST_WORKERS), Tag("count")] | Annotated[ReplicaRange, Tag("range")],
    Discriminator(_replicas_kind),
]


def _batch_size(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST):
        return value
    raise PydanticCustomError("batch_size", "a whole number, or auto")


def _entry(value: object) -> object:
    """A key or a position of a sample's entries; commas part them on the command line."""
    if isinstance(value, str) and value.strip() and "," not in value:
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST:
        return value
    raise PydanticCustomError("entry", "a key, or a position from 0")


_PASS_SIZE = PlainValidator(_batch_size, json_schema_input_type=_Count | Literal["auto"])
_ENTRY = PlainValidator(
    _entry, json_schema_input_type=Annotated[str, Field(pattern=r"^[^,]*[^,\s][^,]*$")] | _Position
)
_DIFFERENT: dict[str, Any] = {"uniqueItems": True}  # for the schema alone


class TeacherConfig(Section):
    """One teacher group."""

    name: str = Field(
        default="teacher",
        pattern=TEACHER_NAME,
        max_length=100,
        description="up to 100 letters, digits, `_`, `.` and `-`",
    )
    model: str = Field(pattern=MODEL, description=MODEL_FORMS)
    kwargs: dict[Annotated[str, Field(pattern=VARIABLE)], JsonValue] = Field(
        default={},
        description="a mapping of the factory's arguments to values, as in {path: models/big}",
        json_schema_extra=ONLY_THESE_NAMES,
    )
    weights: str | None = Field(
        default=None, min_length=1, description="a path, follow:PATH or follow:URL, or null"
    )
    outputs: list[Annotated[str, Field(pattern=OUTPUT_NAME)]] | None = Field(
        default=None,
        min_length=1,
        description="a list of different names of the model's outputs, or null",
        json_schema_extra=_DIFFERENT,
    )
    vocabulary: str | None = Field(default=None, min_length=1, description="a path, or null")
    version: str = Field(
        default="",
        description=f"text, {VERSION_FORM}",
        json_schema_extra={"maxLength": 100, "pattern": r"^(\S(.*\S)?)?$"},
    )
    replicas: Replicas = Field(default=1, description=f"{whole(1, MOST_WORKERS)}, or {{min: M, max: N}}")
    min_replicas: int | None = Field(
        default=None,
        ge=1,
        le=MOST_WORKERS,
        description=f"{whole(1, MOST_WORKERS)} and at most `replicas`, or null for all of them",
    )
    device: str = Field(
        default="auto", pattern=DEVICE, description="auto, cpu, cuda, cuda:N or another torch device"
    )
    batch_size: Annotated[int | Literal["auto"], _PASS_SIZE] = Field(
        default=64, description=f"{whole(1, MOST)}, or auto"
    )
    codec: str = Field(
        default="dense",
        description=CODEC_FORMS,
        json_schema_extra={"pattern": f"^({'|'.join(map(re.escape, GRAMMAR))})(:.*)?$"},
    )
    compile: bool = Field(default=False, description="true or false")
    autocast: Literal["bf16", "fp16"] | None = Field(default=None, description="bf16, fp16 or null")
    channels_last: bool = Field(default=False, description="true or false")
    dataset: str | None = Field(
        default=None,
        pattern=FACTORY,
        description="module:factory, as in `package.module:factory`, or null",
    )
    dataset_inputs: list[Annotated[str | int, _ENTRY]] | None = Field(
        default=None,
        min_length=1,
        description="a list of different keys or positions of a sample's entries, or null",
        json_schema_extra=_DIFFERENT,
    )
    dataset_threads: int = Field(default=1, ge=1, le=MOST_THREADS, description=whole(1, MOST_THREADS))
    allow_nonfinite: bool = Field(default=False, description="true or false")
    resources: ResourcesConfig = Field(
        default_factory=ResourcesConfig, description="a mapping of what one worker needs, as in {gpus: 1}"
    )
    env: Environment = Field(default={}, description="a mapping of variable names to text")

    @field_validator("codec")
    @classmethod
    def _known_codec(cls, name: str) -> str:
        return check_codec_name(name)

    @field_validator("version")
    @classmethod
    def _showable_version(cls, version: str) -> str:
        try:
            return check_version(version)
        except ConfigError as exc:
            raise ValueError("it cannot be shown in a line") from exc

    @field_validator("dataset_inputs")
    @classmethod
    def _different_entries(cls, entries: list[str | int] | None) -> list[str | int] | None:
        if entries is not None and len({str(entry) for entry in entries}) != len(entries):
            raise ValueError("an entry is given twice")
        return entries

    @field_validator("outputs")
    @classmethod
    def _different_outputs(cls, names: list[str] | None) -> list[str] | None:
        if names is not None and len(set(names)) != len(names):
            raise ValueError("an output is given twice")
        return names

    @model_validator(mode="after")
    def _inputs_of_a_dataset(self) -> TeacherConfig:
        if self.dataset_inputs is not None and self.dataset is None:
            raise ValueError("dataset_inputs says which entries of a dataset to take: give dataset, too")
        return self

    @model_validator(mode="after")
    def _versions_of_followed_weights(self) -> TeacherConfig:
        if place_of(self.weights) == "":
            raise ValueError(f"weights {self.weights}: say where they are published, follow:PATH or URL")
        if place_of(self.weights) is not None and self.version:
            raise ValueError(
                f"version {self.version}: weights that are published have versions of their own "
                f"({self.weights}): leave it out"
            )
        return self

    @model_validator(mode="after")
    def _enough_replicas(self) -> TeacherConfig:
        if self.min_replicas is not None and self.min_replicas > self.initial_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} of {self.initial_replicas} workers to start with: it must "
                "not be more than these (replicas, or min of a range)"
            )
        return self

    @property
    def label_settings(self) -> str:
        """What tells its labels from those of the same weights used in another way, as JSON; or empty.

        Of a path counts what lies there, and not where: its last part. An engine is asked in one way only.
        """
        said = {
            "kwargs": {} if is_engine(self.model) else _placeless(self.kwargs),
            "outputs": sorted(self.outputs or ()),
            "autocast": self.autocast,
            "dataset_inputs": self.dataset_inputs,
        }
        text = json.dumps({name: value for name, value in said.items() if value}, sort_keys=True)
        if len(text) > LONGEST_SETTINGS:
            text = f"blake2b {hashlib.blake2b(text.encode(), digest_size=32).hexdigest()}"
        return "" if text == "{}" else text

    @property
    def least_workers(self) -> int:
        """So many workers have to be able to work; the job goes on without the others."""
        return self.initial_replicas if self.min_replicas is None else self.min_replicas

    @property
    def initial_replicas(self) -> int:
        """Workers to start with."""
        return self.replicas.initial if isinstance(self.replicas, ReplicaRange) else self.replicas


def _placeless(value: Any) -> Any:
    """A value of YAML with the last parts of all paths in it."""
    if isinstance(value, Mapping):
        return {key: _placeless(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_placeless(each) for each in value]
    return value.rstrip("/").rpartition("/")[2] if isinstance(value, str) else value
