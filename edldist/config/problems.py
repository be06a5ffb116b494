"""What is wrong in a job file, in words: the key's path, the value, and what is allowed there.

What is allowed is read from the sections, the pydantic models that a job file is checked against.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

__all__ = ["explain", "keys"]

_TAGS: dict[int | str, tuple[str, ...]] = {"replicas": ("count", "range"), "agreement": ("off", "bounds")}


def keys(section: type[BaseModel]) -> str:
    """The keys of a section, to be read by people."""
    return ", ".join(f"`{key}`" for key in section.model_fields)


def explain(error: ErrorDetails, whole: type[BaseModel]) -> str:
    """One problem in one line.

    Args:
        error: what pydantic says of it.
        whole: the section that holds all others.
    """
    location: list[int | str] = []
    for part in error["loc"]:
        # pydantic adds the tags of these unions, and a mark on bad keys: no keys of the file.
        if part != "[key]" and part not in _TAGS.get(location[-1] if location else "", ()):
            location.append(part)
    path = _dotted(location)
    if error["type"] == "extra_forbidden":
        section, _ = _place(location[:-1], whole)
        known = list(section.model_fields) if section else []
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        allowed = f" Allowed here: {keys(section)}" if section else ""
        return f"{path}: unknown key (value {_shown(error['input'])}){hint or '.'}{allowed}"
    section, allowed = _place(location, whole)
    if error["type"] == "missing":
        return f"{path}: missing; it must be {allowed}"
    if error["type"] == "value_error" and section is not None:  # its keys do not go together: it names them
        return f"{path}: {error['msg'].removeprefix('Value error, ')}"
    reason = ""
    if error["type"] in ("value_error", "quote_it"):
        reason = f": {error['msg'].removeprefix('Value error, ')}"
    must = f"it must be {allowed}" if allowed else error["msg"]
    return f"{path}: {_shown(error['input'])} is not allowed{reason}; {must}"


def _dotted(location: Sequence[int | str]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path or "the job"


def _place(location: Sequence[int | str], whole: type[BaseModel]) -> tuple[type[BaseModel] | None, str]:
    """The section that a location lies in (or is), and the description of its last field."""
    section: type[BaseModel] | None = whole
    allowed, named = "", False
    for part in location:
        if isinstance(part, int) or named:
            named = False
            continue
        field = section.model_fields.get(part) if section else None
        if field is None:
            break
        allowed = field.description or allowed
        section = _section_in(field.annotation)
        named = section is not None and get_origin(field.annotation) is dict  # of sections by names
    return section, allowed


def _section_in(annotation: object) -> type[BaseModel] | None:
    """The section that a field holds: itself, in a list, or as one of several kinds of value."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section_in, get_args(annotation))), None)


def _shown(value: object) -> str:
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, list) and any(isinstance(item, BaseModel) for item in value):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
