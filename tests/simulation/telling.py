"""Messages in a story: what each says, and nothing of what it does not."""

from __future__ import annotations

from typing import Any

import msgspec

from edldist.wire.messages import Heartbeat

__all__ = ["told"]

_HOW_LONG_TASKS_TOOK = ("stages", "rows")
"""Fields of a heartbeat, some hundred numbers that explain no step."""


def told(message: Any) -> str:
    """A message as its class and its fields, without those that are as they would be anyway, or empty, or 0.

    A heartbeat is the most frequent message of all, and most of its figures are 0.
    """
    if not isinstance(message, msgspec.Struct):
        return repr(message)
    fields = []
    for field in msgspec.structs.fields(message):
        value = getattr(message, field.name)
        if isinstance(value, dict):
            value = {key: one for key, one in value.items() if not _says_nothing(one)}
        if isinstance(message, Heartbeat) and field.name in _HOW_LONG_TASKS_TOOK:
            continue
        if value != field.default if field.default is not msgspec.NODEFAULT else not _says_nothing(value):
            fields.append(f"{field.name}={_value(value)}")
    return f"{type(message).__name__}({', '.join(fields)})"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_value(one)}' for key, one in value.items())}}}"
    return told(value)


def _says_nothing(value: Any) -> bool:
    return value is None or value in ("", 0) or (isinstance(value, list | dict) and not value)
