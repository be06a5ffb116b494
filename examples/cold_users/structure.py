"""Which modulations of which hidden layers a recommender has: what is searched for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edldist.errors import ConfigError

__all__ = ["FILM", "LAYERS", "OPERATIONS", "PLACES", "best", "chosen", "described"]

OPERATIONS = ("max", "min", "mul", "add")
"""In the order in which they are applied to a layer."""
LAYERS = 3
PLACES = tuple(f"{operation}{layer}" for layer in range(1, LAYERS + 1) for operation in OPERATIONS)
"""Every modulation that there may be, as in ``max1``: the operation, and after which hidden layer."""
FILM = tuple(place for place in PLACES if place.startswith(("mul", "add")))
"""Feature-wise linear modulation of every layer, as it is fixed elsewhere."""


def best(weights: Sequence[float], most: int) -> tuple[str, ...]:
    """The places of the largest weights, in the order of ``PLACES``; of two equal ones the first.

    Args:
        weights: one for each of ``PLACES``.

    Raises:
        ConfigError: so many cannot be kept.
    """
    if not 1 <= most <= len(PLACES):
        raise ConfigError(f"{most} modulations cannot be kept of {len(PLACES)}: keep from 1 to {len(PLACES)}")
    order = sorted(range(len(PLACES)), key=lambda place: -weights[place])
    kept = set(order[:most])
    return tuple(name for place, name in enumerate(PLACES) if place in kept)


def chosen(text: str) -> tuple[str, ...]:
    """Places as they are written: ``film``, ``all``, or ``max1,mul2``.

    Raises:
        ConfigError: there is no such place.
    """
    if text in ("film", "all"):
        return FILM if text == "film" else PLACES
    names = text.split(",")
    if unknown := [name for name in names if name not in PLACES]:
        raise ConfigError(
            f"there is no modulation {unknown[0]!r}: use film, all, or some of {', '.join(PLACES)}, "
            "with commas between them"
        )
    return tuple(place for place in PLACES if place in names)


def described(places: Iterable[str]) -> str:
    """One entry a layer, as in ``max mul | - | add | -``."""
    kept = set(places)
    layers = (
        " ".join(operation for operation in OPERATIONS if f"{operation}{layer}" in kept) or "-"
        for layer in range(1, LAYERS + 1)
    )
    return " | ".join(layers)
