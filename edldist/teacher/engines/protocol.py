"""What an engine's protocol has to offer, whichever it is."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edldist.errors import ModelError
from edldist.teacher.engines.client import Client
from edldist.teacher.engines.entries import Told

__all__ = ["Protocol", "Served", "decoded", "positions_of"]


@dataclass(frozen=True)
class Served:
    """A model that an engine serves.

    Attributes:
        name: by which it is asked for.
        root: what it was loaded from, or empty.
        context: most tokens of a request, or None where the engine does not say.
        version: of its weights, or empty.
    """

    name: str
    root: str = ""
    context: int | None = None
    version: str = ""


class Protocol(ABC):
    """Requests and answers of one kind of engine. Stateless but for the client.

    What a causal model says at a token, what comes next, is what an engine says of the token behind it: of a
    prompt it tells how probable each token was. So position t is asked for as token t + 1, and the last one
    with a token more, whichever: the answer does not depend on it. All labels come out of the prompt in that
    way, and none out of sampling, on which temperatures and penalties have a say.

    Attributes:
        spare: tokens of the context that a request needs beside its prompt.
        raise_cap: how to have it tell more entries.
    """

    spare: ClassVar[int]
    raise_cap: ClassVar[str]

    def __init__(self, client: Client) -> None:
        self.client = client

    def needed(self, length: int, last: int) -> int:
        """How much of the context a sequence needs of which ``last`` is the last asked position."""
        return length + (last == length - 1) + self.spare

    def prompt_entries(
        self, served: Served, tokens: NDArray[np.int64], positions: NDArray[np.int64], kept: int
    ) -> Told:
        """What comes after tokens of a sequence.

        Args:
            served: the model that is asked.
            tokens: int64 [L].
            positions: int64 [P], increasing, each below L.
            kept: K.

        Returns:
            Of the positions, in their order.

        Raises:
            ModelError: the answer lacks positions, or is none.
            EngineLostError: see ``Client``; or its weights are others meanwhile, and it says so.
        """
        prompt = tokens.tolist()
        if positions[-1] == len(prompt) - 1:
            prompt.append(prompt[-1])
        return self._prompt_entries(served, prompt, positions, kept)

    @abstractmethod
    def _prompt_entries(
        self, served: Served, prompt: list[int], positions: NDArray[np.int64], kept: int
    ) -> Told: ...

    @abstractmethod
    def next_entries(self, served: Served, prompt: list[int], kept: int) -> Told | None:
        """What comes after a prompt, by what is told of a token that is then sampled at temperature 1.

        Returns:
            None where ids cannot be told from the answer.
        """

    @abstractmethod
    def tokenize(self, served: Served, text: str) -> list[int]:
        """Ids of a text, perhaps with special ones around it.

        Raises:
            RefusedError: the engine cannot tell.
        """

    @abstractmethod
    def version_of(self, timeout_s: float) -> str:
        """What the engine calls its weights, or empty."""


def decoded(client: Client, content: bytes, kind: Any) -> Any:
    """An answer of some form.

    Python's own JSON has ``NaN``, ``Infinity`` and ``-Infinity``, which are none in JSON, and an engine that
    is written in it says them where its model went wrong. They are let through: whoever looks at the numbers
    can say of which sample and position they are.

    Raises:
        ModelError: it is not of that form.
    """
    try:
        try:
            return msgspec.json.decode(content, type=kind)
        except msgspec.DecodeError:
            if b"NaN" not in content and b"Infinity" not in content:
                raise
            return msgspec.convert(json.loads(content), kind, str_keys=True)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise ModelError(f"the answer of {client.address} is none of its protocol: {exc}") from exc


def positions_of(rows: Sequence[Any], place: NDArray[np.int64], positions: NDArray[np.int64]) -> list[Any]:
    """The rows of asked positions.

    Args:
        place: of each position in ``rows``, int64 [P].

    Raises:
        ModelError: there is none for one of them.
    """
    found = []
    for position, at in zip(positions.tolist(), place.tolist(), strict=True):
        row = rows[at] if 0 <= at < len(rows) else None
        if row is None:
            raise ModelError(f"no entries came for position {position}")
        found.append(row)
    return found
