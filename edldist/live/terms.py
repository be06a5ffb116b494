"""What a node's supervisor tells the ranks that it starts, so that they can find each other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated

import msgspec

from edldist.errors import ConfigError

__all__ = ["TERMS_VARIABLE", "LiveTerms"]

TERMS_VARIABLE = "EDLDIST_LIVE"

_Count = Annotated[int, msgspec.Meta(ge=1)]


class LiveTerms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a rank takes part in a run whose group changes in process.

    Attributes:
        coordinator: ``tcp://host:port`` or ``file:PATH``, where the ranks meet.
        run: of the ranks that meet; ``job``: what they run, so that others of the same id are refused.
        least, most: ranks of the first generation at least, and of any at most.
        host: where ranks of other nodes reach this one; None: there are no other nodes.
        connect_timeout_s: how long to wait for a coordinator that does not answer.
    """

    coordinator: str
    run: str
    job: str
    least: _Count
    most: _Count
    host: str | None = None
    connect_timeout_s: float = 300.0

    def encode(self) -> str:
        """As the variable has it."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> LiveTerms | None:
        """Those of this process; None where nobody started it as such a rank.

        Raises:
            ConfigError: the variable holds something else.
        """
        text = environ.get(TERMS_VARIABLE, "")
        if not text:
            return None
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, msgspec.ValidationError) as exc:
            raise ConfigError(
                f"{TERMS_VARIABLE}={text[:200]!r} is not what 'edldist student --resize live' sets: {exc}"
            ) from exc
