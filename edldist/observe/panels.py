"""Which metrics share a panel of the plot: those of one kind, whatever else their names say. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

__all__ = ["kind_of", "panels"]

T = TypeVar("T")


def panels(metrics: Mapping[str, T]) -> dict[str, dict[str, T]]:
    """The metrics by the panel that they belong to; losses and accuracies first, none left out.

    ``eval/ppl`` and ``ppl`` are of one kind, as are ``lr_0`` and ``lr_1``: the last word of a name tells.
    """
    found: dict[str, dict[str, T]] = {}
    for name, values in metrics.items():
        found.setdefault(kind_of(name), {})[name] = values
    first = [kind for kind in ("loss", "accuracy") if kind in found]
    return {kind: found[kind] for kind in dict.fromkeys([*first, *found])}


def kind_of(name: str) -> str:
    """What kind of figure a name stands for: ``eval/kd_loss`` for a ``loss``."""
    plain = name.lower()
    if "loss" in plain:
        return "loss"
    if "acc" in plain:
        return "accuracy"
    words = [word for word in re.split(r"[^a-z0-9]+", plain) if word and not word.isdecimal()]
    return words[-1] if words else name
