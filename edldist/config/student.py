"""The section of the student's process group."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainValidator, field_validator, model_validator
from pydantic_core import PydanticCustomError

from edldist.bounds import (
    MOST,
    MOST_DEGRADATIONS,
    MOST_NODES,
    MOST_PRIORITY,
    MOST_RANKS_A_NODE,
    MOST_WEIGHT,
    node_range,
)
from edldist.config.resources import ResourcesConfig
from edldist.config.section import TEACHER_NAME, Environment, Section, Text, whole
from edldist.errors import CodecError
from edldist.labels.grammar import SMALLER_CODECS, parse_spec

__all__ = ["DegradeConfig", "StudentConfig"]

_RankCount = Annotated[int, Field(ge=1, le=MOST_RANKS_A_NODE)]


def _node_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _ranks(value: object) -> object:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if value in ("gpu", "auto") or (whole and 1 <= value <= MOST_RANKS_A_NODE):  # type: ignore[operator]
        return value
    raise PydanticCustomError("ranks", "a whole number, gpu or auto")


_NODES = BeforeValidator(
    _node_text,
    json_schema_input_type=Annotated[str, Field(pattern=r"^\d{1,6}(:\d{1,6})?$")]
    | Annotated[int, Field(ge=1, le=MOST_NODES)],
)
_RANKS = PlainValidator(_ranks, json_schema_input_type=_RankCount | Literal["gpu", "auto"])


class DegradeConfig(Section):
    """What a job allows on an overloaded fleet: another teacher, or a smaller codec of the one before."""

    teacher: str | None = Field(
        default=None,
        pattern=TEACHER_NAME,
        max_length=100,
        description="the name of a teacher of the job, which labels instead of the one that the script asks",
    )
    codec: str | None = Field(
        default=None,
        max_length=100,
        description="a smaller codec than the teacher's own, as in topk:16: dense, int8, topk, topp, rs or "
        "head+rs with their parameters",
    )

    @field_validator("codec")
    @classmethod
    def _needs_outputs_alone(cls, codec: str | None) -> str | None:
        if codec is not None:
            try:
                spec = parse_spec(codec)
            except CodecError as exc:
                raise ValueError(str(exc)) from exc
            if spec.name not in SMALLER_CODECS:
                raise ValueError(f"labels in codec {codec} need more than any teacher's outputs")
        return codec

    @model_validator(mode="after")
    def _one_of_both(self) -> DegradeConfig:
        if (self.teacher is None) == (self.codec is None):
            raise ValueError(
                "give each entry a teacher or a codec, as in {codec: topk:16} or {teacher: small}"
            )
        return self

    @property
    def entry(self) -> str:
        """As ``EDLDIST_DEGRADE`` has it."""
        return f"codec={self.codec}" if self.codec is not None else str(self.teacher)


class StudentConfig(Section):
    """The training script and its process group."""

    script: str = Field(min_length=1, description="the path of a Python script")
    args: list[Text] = Field(default=[], description="a list of text and numbers")
    nnodes: Annotated[str, _NODES] = Field(
        default="1", description='a number of nodes, as in "1", or a range, as in "1:4"'
    )
    nproc_per_node: Annotated[int | Literal["gpu", "auto"], _RANKS] = Field(
        default=1,
        description=f"{whole(1, MOST_RANKS_A_NODE)}, gpu (as many as there are) or auto (GPUs, else cores)",
    )
    max_restarts: int = Field(default=3, ge=0, le=MOST, description=whole(0, MOST))
    high_watermark: int | None = Field(
        default=None,
        ge=1,
        le=MOST,
        description=f"{whole(1, MOST)}, or null: batches a rank reads ahead, where its script says nothing",
    )
    low_watermark: int | None = Field(
        default=None,
        ge=0,
        le=MOST,
        description=f"{whole(0, MOST)}, or null for a quarter of high_watermark: at so many it reads on",
    )
    weight: int | None = Field(
        default=None,
        ge=1,
        le=MOST_WEIGHT,
        description=f"{whole(1, MOST_WEIGHT)}, or null: its part of workers that it shares with other jobs",
    )
    priority: int = Field(
        default=0,
        ge=-MOST_PRIORITY,
        le=MOST_PRIORITY,
        description=f"{whole(-MOST_PRIORITY, MOST_PRIORITY)}",
    )
    resize: Literal["restart", "live"] = Field(
        default="restart",
        description="restart (by torchrun, all ranks) or live (those that are here go on: edldist.LiveGroup)",
    )
    degrade: list[DegradeConfig] = Field(
        default=[],
        max_length=MOST_DEGRADATIONS,
        description=f"a list of up to {MOST_DEGRADATIONS} smaller codecs or cheaper teachers, as in "
        "[{codec: topk:16}, {teacher: small}]",
    )
    resources: ResourcesConfig = Field(
        default_factory=ResourcesConfig, description="a mapping of what one node needs, as in {gpus: 8}"
    )
    env: Environment = Field(default={}, description="a mapping of variable names to text")

    @property
    def ranks(self) -> int:
        """Ranks of one node, of a job in which ``gpu`` and ``auto`` have become a number."""
        assert isinstance(self.nproc_per_node, int), f"nproc_per_node is {self.nproc_per_node} still"
        return self.nproc_per_node

    @model_validator(mode="after")
    def _low_is_below_high(self) -> StudentConfig:
        low, high = self.low_watermark, self.high_watermark
        if low is not None and low >= (8 if high is None else high):
            raise ValueError(
                f"low_watermark {low} has to be below high_watermark, which is "
                f"{'8 where nobody names it' if high is None else high}"
            )
        return self

    @field_validator("nnodes")
    @classmethod
    def _node_bounds(cls, nnodes: str) -> str:
        node_range(nnodes)
        return nnodes
