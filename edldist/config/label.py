"""The section of ``edldist label``: which data set is labelled ahead of time, and in which pieces."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue, PlainValidator, model_validator
from pydantic_core import PydanticCustomError

from edldist.bounds import MOST, MOST_RANKS_A_NODE, MOST_THREADS
from edldist.config.resources import ResourcesConfig
from edldist.config.section import ONLY_THESE_NAMES, VARIABLE, Environment, Section, whole
from edldist.reference import FACTORY

__all__ = ["INDEX", "LabelConfig", "LabelSequencesConfig"]

INDEX = "index"
"""Of ``ids``: a sample is known by its place in the data set."""
MOST_BATCHED = 1_000_000
MOST_IN_A_SHARD = 100_000_000

_Key = Annotated[str, Field(pattern=r"^\S(.*\S)?$")] | Annotated[int, Field(ge=0, le=MOST)]
_Keys = Annotated[list[_Key], Field(min_length=1)]


def _is_key(value: object) -> bool:
    if isinstance(value, str):
        return bool(value) and value == value.strip()
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST


def _entries(value: object) -> object:
    """A key or a position of a batch, or a list of different ones."""
    if value is None or _is_key(value):
        return value
    if isinstance(value, list) and value and all(map(_is_key, value)) and len(set(value)) == len(value):
        return value
    raise PydanticCustomError("entries", "keys, or positions from 0")


_INPUTS = PlainValidator(_entries, json_schema_input_type=_Key | _Keys | None)


class LabelSequencesConfig(Section):
    """How the sequences of a batch lie in it, as ``Sequences`` of the loop that learns from their labels."""

    mask: str | None = Field(
        default=None,
        min_length=1,
        description="a key of the batch that says where tokens are, or null for all",
    )
    asked: str | None = Field(
        default=None,
        min_length=1,
        description="a key of the batch that says of which tokens labels are wanted, or null for all",
    )
    whole: bool = Field(default=False, description="true or false")

    @model_validator(mode="after")
    def _one_or_some(self) -> LabelSequencesConfig:
        if self.whole and self.asked is not None:
            raise ValueError("whole asks for one label of each sequence: leave asked out")
        return self


class LabelConfig(Section):
    """What ``edldist label`` labels, and how its ranks read it."""

    data: str = Field(pattern=FACTORY, description="module:factory, as in `package.module:factory`")
    kwargs: dict[Annotated[str, Field(pattern=VARIABLE)], JsonValue] = Field(
        default={},
        description="a mapping of the factory's arguments to values, as in {split: train}",
        json_schema_extra=ONLY_THESE_NAMES,
    )
    inputs: Annotated[str | int | list[str | int] | None, _INPUTS] = Field(
        default=None,
        description="a key or a position (from 0) of a batch, a list of different ones, or null for batches "
        "that are one tensor",
    )
    sequences: LabelSequencesConfig | None = Field(
        default=None,
        description="a mapping, as in {mask: attention_mask}, where `inputs` are tokens of padded sequences, "
        "or null",
    )
    ids: str | None = Field(
        default=None,
        min_length=1,
        description="index (a sample's place in the data set), a key of the batch that holds ids, or null: "
        "the inputs themselves are digested",
    )
    batch_size: int = Field(default=256, ge=1, le=MOST_BATCHED, description=whole(1, MOST_BATCHED))
    shard_rows: int = Field(default=16_384, ge=1, le=MOST_IN_A_SHARD, description=whole(1, MOST_IN_A_SHARD))
    num_workers: int = Field(default=0, ge=0, le=MOST_THREADS, description=whole(0, MOST_THREADS))
    nproc_per_node: int = Field(
        default=1, ge=1, le=MOST_RANKS_A_NODE, description=whole(1, MOST_RANKS_A_NODE)
    )
    max_restarts: int = Field(default=3, ge=0, le=MOST, description=whole(0, MOST))
    resources: ResourcesConfig = Field(
        default_factory=ResourcesConfig, description="a mapping of what all ranks need, as in {cpus: 4}"
    )
    env: Environment = Field(default={}, description="a mapping of variable names to text")

    @model_validator(mode="after")
    def _sequences_of_tokens(self) -> LabelConfig:
        if self.sequences is not None and self.inputs is None:
            raise ValueError("sequences are of tokens: say with inputs which entries of a batch these are")
        if self.sequences is not None and self.ids is not None:
            raise ValueError("ids: labels of sequences depend on what is asked: leave ids out")
        return self
