"""Whether a function can be called with some arguments, told by its signature and without calling it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["at_position", "misfit", "takes", "takes_any_name"]


def misfit(function: Callable[..., Any], positional: Sequence[Any], named: Mapping[str, Any]) -> str | None:
    """Why a function cannot be called so, with what it takes; None if it can, or does not tell.

    Args:
        function: of a module, its ``forward`` counts.
    """
    signature = _signature(function)
    if signature is None:
        return None
    try:
        signature.bind(*positional, **named)
    except TypeError as exc:
        return f"{exc}; it takes {_brief(signature)}"
    return None


def at_position(function: Callable[..., Any], position: int) -> str | None:
    """What a function calls the argument that it gets at some position; None if it does not tell."""
    signature = _signature(function)
    names = [] if signature is None else list(signature.parameters)
    return names[position] if position < len(names) else None


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has an argument of that name."""
    signature = _signature(function)
    return signature is not None and name in signature.parameters


def takes_any_name(function: Callable[..., Any]) -> bool:
    """Whether a function looks up its arguments by itself (``**inputs``)."""
    signature = _signature(function)
    kinds = [] if signature is None else [each.kind for each in signature.parameters.values()]
    return inspect.Parameter.VAR_KEYWORD in kinds


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(_called(function))
    except (TypeError, ValueError):  # of some that are written in C
        return None


def _called(function: Any) -> Any:
    """What takes the arguments: of a module, its ``forward``."""
    nn = sys.modules.get("torch.nn")  # where nobody has imported it, nobody has made one
    return function.forward if nn is not None and isinstance(function, nn.Module) else function


def _brief(signature: inspect.Signature) -> str:
    """Names and defaults: annotations fill lines."""
    plain = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    return str(inspect.Signature(plain))
