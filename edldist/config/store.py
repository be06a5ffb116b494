"""The section of the store: where labels are kept, how many, and what may be done with them."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator, model_validator

from edldist.config.resources import MEMORY_FORM, memory_bytes
from edldist.config.section import Section

__all__ = ["StoreConfig"]

LONGEST_TEXT = 1_000
_SIZE: dict[str, Any] = {"pattern": r"^([1-9]\d{0,8})(MiB|GiB|TiB)$"}


class StoreConfig(Section):
    """Labels that teachers made, kept for later epochs, other ranks and other runs (docs/store.md)."""

    path: str = Field(min_length=1, description="a folder, or a URL")
    memory: str = Field(default="1GiB", description=MEMORY_FORM, json_schema_extra=_SIZE)
    disk: str = Field(default="100GiB", description=MEMORY_FORM, json_schema_extra=_SIZE)
    preprocessing: str = Field(
        default="",
        max_length=LONGEST_TEXT,
        description="text that says what was done to the inputs, in any words",
    )
    data: str = Field(
        default="",
        max_length=LONGEST_TEXT,
        description="text that says which data set the ids of samples belong to, in any words",
    )
    read_only: bool = Field(default=False, description="true or false")
    only: bool = Field(default=False, description="true or false")

    @field_validator("memory", "disk")
    @classmethod
    def _an_amount(cls, size: str) -> str:
        memory_bytes(size)
        return size

    @model_validator(mode="after")
    def _showable_texts(self) -> StoreConfig:
        for name in ("path", "preprocessing", "data"):
            if not getattr(self, name).isprintable():
                raise ValueError(f"{name} {getattr(self, name)!r:.100} cannot be shown in a line")
        return self

    @property
    def is_url(self) -> bool:
        """Whether the labels lie in an object store."""
        return "://" in self.path
