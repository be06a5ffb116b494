"""What the sections of a job file are made of: their base, and the forms of values that several have."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

__all__ = [
    "JOB_NAME",
    "ONLY_THESE_NAMES",
    "TEACHER_NAME",
    "VARIABLE",
    "Environment",
    "Section",
    "Text",
    "whole",
]

JOB_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
TEACHER_NAME = r"^[A-Za-z0-9_.-]+$"
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
ONLY_THESE_NAMES: dict[str, Any] = {"additionalProperties": False}
"""For the schema alone: without it a mapping takes any name beside those that match the pattern."""


class Section(BaseModel):
    """A mapping of the job file. Every field's description says what is allowed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def whole(least: int, most: int) -> str:
    """What is allowed of a whole number, in words."""
    return f"a whole number from {least} to {most}"


def _text(value: object) -> object:
    """Numbers as text, so that ``args: [--epochs, 5]`` needs no quotes."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if value is None or isinstance(value, bool):
        raise PydanticCustomError("quote_it", "quote it in the job file to pass it as text")
    return value


Text = Annotated[str, BeforeValidator(_text, json_schema_input_type=str | int | float)]
Environment = Annotated[
    dict[Annotated[str, Field(pattern=VARIABLE)], Text], Field(json_schema_extra=ONLY_THESE_NAMES)
]
