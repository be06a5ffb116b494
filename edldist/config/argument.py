"""One argument of a teacher's factory, as text: ``name=value``."""

from __future__ import annotations

import re
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from edldist.config.section import VARIABLE
from edldist.errors import ConfigError
from edldist.yamltext import dump_yaml, parse_yaml

__all__ = ["dump_argument", "parse_argument"]

_argument: TypeAdapter[Any] = TypeAdapter(JsonValue)


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
