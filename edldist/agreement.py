"""How far apart the workers of a teacher group may be, and how often they are compared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from edldist.bounds import LONGEST_WAIT_S
from edldist.errors import ConfigError

__all__ = ["LEAST_S", "MAX_NATS", "MAX_RELATIVE", "EVERY_S", "AgreementBounds"]

MAX_NATS = 0.1
MAX_RELATIVE = 0.1
EVERY_S = 60.0
LEAST_S = 0.05
_OFF = ("off", "false", "no", "0")


class AgreementBounds(NamedTuple):
    """Bounds of what counts as the same teacher.

    Attributes:
        max_nats: of distributions, the most symmetric KL divergence of one row.
        max_relative: of other outputs, the most that a row may be off, as a share of its length.
        every_s: seconds between two comparisons of a worker.
    """

    max_nats: float = MAX_NATS
    max_relative: float = MAX_RELATIVE
    every_s: float = EVERY_S

    @classmethod
    def of(cls, given: Mapping[str, float] | str | None, what: str) -> AgreementBounds | None:
        """Bounds as a mapping, or as text: ``max_nats=0.2,every_s=30``; None if nobody is to be compared.

        Args:
            given: what is missing has its default; ``off`` for no comparison; empty for the defaults.
            what: where it was given, for errors.

        Raises:
            ConfigError: an unknown name, or a value that cannot be used.
        """
        if isinstance(given, str):
            if given.strip().lower() in _OFF:
                return None
            given = _parsed(given, what)
        if not isinstance(given or {}, Mapping):
            raise ConfigError(f"{what}={given!r}: use a mapping of {', '.join(cls._fields)}, or 'off'")
        return cls()._with(given or {}, what)

    def _with(self, given: Mapping[str, float], what: str) -> AgreementBounds:
        for name, value in given.items():
            if name not in self._fields:
                raise ConfigError(
                    f"{what}: {name!r} is no bound; there are {', '.join(self._fields)}, or off"
                )
            least, most = (LEAST_S, LONGEST_WAIT_S) if name == "every_s" else (0.0, math.inf)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and least <= value <= most and value > 0 and math.isfinite(value)):
                unit = f"seconds, from {least:g} to {most:g}" if name == "every_s" else "a number above 0"
                raise ConfigError(f"{what}: {name}={value!r}: needs {unit}")
        return self._replace(**{name: float(value) for name, value in given.items()})

    @property
    def text(self) -> str:
        """As ``of`` reads it."""
        return ",".join(f"{name}={value!r}" for name, value in self._asdict().items())


def _parsed(text: str, what: str) -> dict[str, float]:
    given: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, value = part.partition("=")
        try:
            given[name.strip()] = float(value)
        except ValueError:
            raise ConfigError(
                f"{what}={text!r}: use off, or bounds as in {AgreementBounds().text}; {part!r} is none"
            ) from None
    return given
