"""YAML by the core schema of YAML 1.2, which is what people expect of it.

``1:4`` is text and not the sexagesimal number 64, ``no`` is text and not false, ``1e-4`` is a number.
Duplicate keys are refused.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from edldist.errors import ConfigError

__all__ = ["dump_yaml", "parse_yaml"]


def dump_yaml(document: Any, *, in_one_line: bool = False) -> str:
    """A document as text that ``parse_yaml`` reads back equal, its keys in their order."""
    text = yaml.dump(
        document,
        Dumper=_Dumper,
        default_flow_style=in_one_line,
        sort_keys=False,
        allow_unicode=True,
        width=1 << 30 if in_one_line else 100,
    )
    return str(text)


def _core_resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Plain scalars by the core schema of YAML 1.2."""
    resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for tag, pattern, first in (
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        ("int", r"[-+]?[0-9]+", list("-+0123456789")),
        (
            "float",
            r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
            list("-+0123456789."),
        ),
        ("merge", r"<<", ["<"]),
    ):
        for character in first:
            resolvers.setdefault(character, []).append(
                (f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})\Z"))
            )
    return resolvers


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _core_resolvers()

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key `{key.value}` is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = _core_resolvers()

    def ignore_aliases(self, data: Any) -> bool:
        return True


def parse_yaml(text: str, where: str) -> Any:
    """What a text says.

    Raises:
        ConfigError: it is not valid YAML; names ``where`` with the line and the column.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        context = f" ({exc.context})" if exc.context else ""
        raise ConfigError(f"{where}{line}: not valid YAML: {exc.problem}{context}") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{where}: not valid YAML: {exc}") from exc
