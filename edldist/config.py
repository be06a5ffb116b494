"""The job file: what it may say, and how it is read and written.

``load_job`` reads YAML, applies ``--set`` overrides and validates; ``dump_job`` writes the
resolved job so that it loads back equal. Nothing here imports torch.

``job_schema`` says the same as JSON schema, for editors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    PlainValidator,
    Tag,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from edldist.bounds import (
    LONGEST_TTL_S,
    MOST,
    MOST_NODES,
    MOST_RANKS_A_NODE,
    MOST_THREADS,
    MOST_WORKERS,
    node_range,
)
from edldist.errors import CodecError, ConfigError
from edldist.labels.fingerprint import VERSION_FORM, check_version
from edldist.labels.grammar import CODEC_FORMS, GRAMMAR, parse_spec
from edldist.problems import explain, keys
from edldist.yamltext import dump_yaml, parse_yaml

__all__ = [
    "CheckpointConfig",
    "CoordinatorConfig",
    "JobConfig",
    "ReplicaRange",
    "ScriptConfig",
    "StudentConfig",
    "TeacherConfig",
    "check_codec_name",
    "dump_argument",
    "dump_job",
    "job_schema",
    "load_job",
    "parse_argument",
]


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


def _text(value: object) -> object:
    """Numbers as text, so that ``args: [--epochs, 5]`` needs no quotes."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if value is None or isinstance(value, bool):
        raise PydanticCustomError("quote_it", "quote it in the job file to pass it as text")
    return value


def _node_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_RankCount = Annotated[int, Field(ge=1, le=MOST_RANKS_A_NODE)]
_Count = Annotated[int, Field(ge=1, le=MOST)]
_Position = Annotated[int, Field(ge=0, le=MOST)]
Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=str | int | float)]
JOB_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
TEACHER_NAME = r"^[A-Za-z0-9_.-]+$"
FACTORY = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$"
MODEL = rf"^({FACTORY[1:-1]}|hf:\S(.*\S)?)$"
DEVICE = r"^[a-z]+(:\d+)?$"
OUTPUT_NAME = r"^[^\s,]+$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
# For the schema alone. Without the first it takes any name beside those that match the pattern.
_ONLY_THESE_NAMES: dict[str, Any] = {"additionalProperties": False}
_DIFFERENT: dict[str, Any] = {"uniqueItems": True}
Environment = Annotated[
    dict[Annotated[str, Field(pattern=VARIABLE)], Text], Field(json_schema_extra=_ONLY_THESE_NAMES)
]

_argument: TypeAdapter[Any] = TypeAdapter(JsonValue)


def _whole(least: int, most: int) -> str:
    return f"a whole number from {least} to {most}"


class _Section(BaseModel):
    """A mapping of the job file. Every field's description says what is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ReplicaRange(_Section):
    """Bounds between which the number of a teacher's workers may move."""

    min: int = Field(ge=0, le=MOST_WORKERS, description=_whole(0, MOST_WORKERS))
    max: int = Field(ge=1, le=MOST_WORKERS, description=_whole(1, MOST_WORKERS))

    @model_validator(mode="after")
    def _ordered(self) -> ReplicaRange:
        if self.min > self.max:
            raise ValueError("min must not exceed max")
        return self


def _replicas_kind(value: object) -> str:
    return "range" if isinstance(value, Mapping | ReplicaRange) else "count"


Replicas = Annotated[
    Annotated[int, Field(ge=1, le=MOST_WORKERS), Tag("count")] | Annotated[ReplicaRange, Tag("range")],
    Discriminator(_replicas_kind),
]


def _ranks(value: object) -> object:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value in ("gpu", "auto") or (whole and 1 <= value <= MOST_RANKS_A_NODE):  # type: ignore[operator]
        return value
    raise PydanticCustomError("ranks", "a whole number, gpu or auto")


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
_RANKS = PlainValidator(_ranks, json_schema_input_type=_RankCount | Literal["gpu", "auto"])
_NODES = BeforeValidator(
    _node_text,
    json_schema_input_type=Annotated[str, Field(pattern=r"^\d{1,6}(:\d{1,6})?$")]
    | Annotated[int, Field(ge=1, le=MOST_NODES)],
)


class TeacherConfig(_Section):
    """One teacher group."""

    name: str = Field(
        default="teacher",
        pattern=TEACHER_NAME,
        max_length=100,
        description="up to 100 letters, digits, `_`, `.` and `-`",
    )
    model: str = Field(
        pattern=MODEL,
        description="module:factory, as in `package.module:factory`, or hf:FOLDER, as in `hf:models/gpt2`",
    )
    kwargs: dict[Annotated[str, Field(pattern=VARIABLE)], JsonValue] = Field(
        default={},
        description="a mapping of the factory's arguments to values, as in {path: models/big}",
        json_schema_extra=_ONLY_THESE_NAMES,
    )
    weights: str | None = Field(default=None, min_length=1, description="a path, or null")
    outputs: list[Annotated[str, Field(pattern=OUTPUT_NAME)]] | None = Field(
        default=None,
        min_length=1,
        description="a list of different names of the model's outputs, or null",
        json_schema_extra=_DIFFERENT,
    )
    version: str = Field(
        default="",
        description=f"text, {VERSION_FORM}",
        json_schema_extra={"maxLength": 100, "pattern": r"^(\S(.*\S)?)?$"},
    )
    replicas: Replicas = Field(default=1, description=f"{_whole(1, MOST_WORKERS)}, or {{min: M, max: N}}")
    min_replicas: int | None = Field(
        default=None,
        ge=1,
        le=MOST_WORKERS,
        description=f"{_whole(1, MOST_WORKERS)} and at most `replicas`, or null for all of them",
    )
    device: str = Field(
        default="auto", pattern=DEVICE, description="auto, cpu, cuda, cuda:N or another torch device"
    )
    batch_size: Annotated[int | Literal["auto"], _PASS_SIZE] = Field(
        default=64, description=f"{_whole(1, MOST)}, or auto"
    )
    codec: str = Field(
        default="dense",
        description=CODEC_FORMS,
        json_schema_extra={"pattern": f"^({'|'.join(GRAMMAR)})(:.*)?$"},
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
    dataset_threads: int = Field(default=1, ge=1, le=MOST_THREADS, description=_whole(1, MOST_THREADS))
    allow_nonfinite: bool = Field(default=False, description="true or false")
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
    def _enough_replicas(self) -> TeacherConfig:
        if self.min_replicas is not None and self.min_replicas > self.initial_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} of {self.initial_replicas} workers to start with"
            )
        return self

    @property
    def least_workers(self) -> int:
        """So many workers have to be able to work; the job goes on without the others."""
        return self.initial_replicas if self.min_replicas is None else self.min_replicas

    @property
    def initial_replicas(self) -> int:
        """Workers to start with: the lower bound of a range, and at least one."""
        return max(1, self.replicas.min) if isinstance(self.replicas, ReplicaRange) else self.replicas


class StudentConfig(_Section):
    """The training script and its process group."""

    script: str = Field(min_length=1, description="the path of a Python script")
    args: list[Text] = Field(default=[], description="a list of text and numbers")
    nnodes: Annotated[str, _NODES] = Field(
        default="1", description='a number of nodes, as in "1", or a range, as in "1:4"'
    )
    nproc_per_node: Annotated[int | Literal["gpu", "auto"], _RANKS] = Field(
        default=1,
        description=f"{_whole(1, MOST_RANKS_A_NODE)}, gpu (as many as there are) or auto (GPUs, else cores)",
    )
    max_restarts: int = Field(default=3, ge=0, le=MOST, description=_whole(0, MOST))
    env: Environment = Field(default={}, description="a mapping of variable names to text")

    @property
    def ranks(self) -> int:
        """Ranks of one node, of a job in which ``gpu`` and ``auto`` have become a number."""
        assert isinstance(self.nproc_per_node, int), f"nproc_per_node is {self.nproc_per_node} still"
        return self.nproc_per_node

    @field_validator("nnodes")
    @classmethod
    def _node_bounds(cls, nnodes: str) -> str:
        node_range(nnodes)
        return nnodes


class CoordinatorConfig(_Section):
    """What the job's coordinator is patient about, and how it links workers and students."""

    heartbeat_ttl_s: float = Field(
        default=3.0,
        ge=0.5,
        le=LONGEST_TTL_S,
        allow_inf_nan=False,
        description=f"seconds of silence after which a process counts as lost, from 0.5 to {LONGEST_TTL_S:g}",
    )
    max_students_per_worker: int = Field(default=16, ge=1, le=MOST, description=_whole(1, MOST))


class CheckpointConfig(_Section):
    """When the training script saves, and how many checkpoints stay."""

    every_steps: int | None = Field(default=50, ge=1, le=MOST, description=f"{_whole(1, MOST)}, or null")
    keep: int = Field(default=3, ge=1, le=MOST, description=_whole(1, MOST))


class ScriptConfig(_Section):
    """A script that runs once, before everything else."""

    script: str = Field(min_length=1, description="the path of a Python script")
    args: list[Text] = Field(default=[], description="a list of text and numbers")


class JobConfig(_Section):
    """A whole job file."""

    name: str = Field(
        pattern=JOB_NAME,
        max_length=100,
        description="up to 100 letters, digits, `_`, `.` and `-`, the first a letter, digit or `_`",
    )
    teachers: list[TeacherConfig] = Field(min_length=1, description="a list of one teacher or more")
    student: StudentConfig = Field(description="a mapping with `script`")
    checkpoint: CheckpointConfig = Field(
        default_factory=CheckpointConfig, description="a mapping, as in {every_steps: 50, keep: 3}"
    )
    coordinator: CoordinatorConfig = Field(
        default_factory=CoordinatorConfig, description="a mapping, as in {heartbeat_ttl_s: 3}"
    )
    deterministic: bool = Field(default=False, description="true or false")
    on_poison: Literal["raise", "skip"] = Field(default="raise", description="raise or skip")
    prepare: ScriptConfig | None = Field(default=None, description="a mapping with `script`, or null")

    @field_validator("teachers")
    @classmethod
    def _unique_names(cls, teachers: list[TeacherConfig]) -> list[TeacherConfig]:
        names = [teacher.name for teacher in teachers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"every teacher needs a name of its own; given twice: {', '.join(twice)}")
        return teachers

    @model_validator(mode="after")
    def _cuts_are_known(self) -> JobConfig:
        if self.deterministic and any(teacher.batch_size == "auto" for teacher in self.teachers):
            raise ValueError(
                "deterministic: true cuts batches at the teacher's batch_size, which must then be a number "
                "and not auto: what auto finds depends on the machine"
            )
        return self

    @property
    def task_size(self) -> int | None:
        """Samples of a fixed cut: as many as every teacher takes in one pass; None unless deterministic."""
        sizes = [teacher.batch_size for teacher in self.teachers if isinstance(teacher.batch_size, int)]
        return min(sizes) if self.deterministic else None


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> JobConfig:
    """Read a job file and apply overrides.

    Args:
        path: the YAML file.
        overrides: ``key=value``; the key a dotted path (``teachers.0.replicas``), the value YAML.

    Raises:
        ConfigError: the file cannot be read or says something that is not allowed. All problems
            are listed, each with its key's path, the value, and what is allowed.
    """
    document = _read(Path(path))
    for override in overrides:
        _override(document, override)
    try:
        return JobConfig.model_validate(document)
    except ValidationError as exc:
        problems = [explain(error, JobConfig) for error in exc.errors()]
        several = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise ConfigError(f"{path}: {several}\n{listed}") from exc


def dump_job(job: JobConfig) -> str:
    """The resolved job as YAML, every default written out; ``load_job`` of it gives an equal job."""
    return dump_yaml(job.model_dump())


def job_schema() -> dict[str, Any]:
    """The JSON schema of a job file: editors complete and check by it.

    It refuses no file that ``load_job`` takes, and takes some that ``load_job`` refuses: it knows nothing of
    what depends on two places (names of teachers that differ, ``min_replicas`` and ``replicas``), and of
    codecs no more than their names.
    """
    schema = JobConfig.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "edldist job file"}


def parse_argument(text: str) -> tuple[str, Any]:
    """``name=value`` of a factory's argument, the value in YAML, as in ``layers=3`` or ``path=models/big``.

    Raises:
        ConfigError: it has another form, or its value is none that a job file could hold.
    """
    name, equals, value = text.partition("=")
    if not equals or not re.match(VARIABLE, name):
        raise ConfigError(f"{text}: write name=value, as in path=models/big")
    try:
        return name, _argument.validate_python(parse_yaml(value, text))
    except ValidationError as exc:
        raise ConfigError(
            f"{text}: the value must be text, a number, true, false, null, a list or a mapping"
        ) from exc


def dump_argument(name: str, value: Any) -> str:
    """What ``parse_argument`` reads as that name and value."""
    return f"{name}={dump_yaml([value], in_one_line=True).strip()[1:-1]}"


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"no such job file: {path}") from None
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: not a UTF-8 text file: {exc}") from exc
    except OSError as exc:
        raise ConfigError(f"cannot read the job file {path}: {exc.strerror}") from exc
    document = parse_yaml(text, str(path))
    if not isinstance(document, dict):
        held = "nothing" if document is None else f"a {type(document).__name__}"
        raise ConfigError(f"{path}: a job file is a mapping of {keys(JobConfig)}, this one holds {held}")
    return document


def _override(document: dict[str, Any], override: str) -> None:
    """Set one dotted path in place. Missing mappings are made; validation judges the result."""
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key or not all(key.split(".")):
        raise ConfigError(f"--set {override}: write key=value, as in --set student.nproc_per_node=2")
    value = parse_yaml(text, f"--set {override}")
    place: Any = document
    *parents, last = key.split(".")
    for depth, part in enumerate([*parents, last]):
        here = ".".join(key.split(".")[:depth]) or "the job"
        index: Any = part
        if isinstance(place, list):
            if not part.isdecimal() or int(part) >= len(place):
                raise ConfigError(
                    f"--set {override}: {here} is a list of {len(place)}; "
                    f"use an index from 0 to {len(place) - 1}, not `{part}`"
                )
            index = int(part)
        elif not isinstance(place, dict):
            raise ConfigError(f"--set {override}: {here} is {place!r}, which has no `{part}` in it")
        if depth == len(parents):
            place[index] = value
            return
        if isinstance(place, dict) and place.get(index) is None:
            place[index] = {}
        place = place[index]
