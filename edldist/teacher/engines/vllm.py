"""vLLM's ``/v1/completions`` with ``prompt_logprobs``."""

from __future__ import annotations

import itertools
from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edldist.errors import ModelError
from edldist.teacher.engines.entries import Told
from edldist.teacher.engines.protocol import Protocol, Served, decoded, positions_of

__all__ = ["VLLM"]

_COMPLETIONS = "/v1/completions"
_NEVER = -9999.0
"""JSON has no ``-inf``: vLLM says this instead."""
_ID = "token_id:"


class _Entry(msgspec.Struct, gc=False):
    logprob: float | None
    rank: int


class _Sampled(msgspec.Struct, gc=False):
    top_logprobs: list[dict[str, float] | None] | None = None


class _Choice(msgspec.Struct, gc=False):
    prompt_logprobs: list[dict[int, _Entry] | None] | None = None
    logprobs: _Sampled | None = None


class _Completion(msgspec.Struct, gc=False):
    choices: list[_Choice]


class _Tokens(msgspec.Struct, gc=False):
    tokens: list[int]


class VLLM(Protocol):
    """Entry t of ``prompt_logprobs`` is a mapping of ids to what they had at token t, None for the first one.

    It holds the K most probable, and the prompt's own token if that is not among them, with a rank above K.
    That one is dropped by its rank: were it counted, an engine that tells K - 1 would seem to tell K. One
    token is sampled, because vLLM samples one at least.
    """

    spare: ClassVar[int] = 1
    raise_cap: ClassVar[str] = "start it with --max-logprobs {kept} or more (its default is 20)"

    def _prompt_entries(
        self, served: Served, prompt: list[int], positions: NDArray[np.int64], kept: int
    ) -> Told:
        asked = _request(served.name, prompt) | {"prompt_logprobs": kept}
        rows = self._first_choice(asked).prompt_logprobs
        if rows is None or len(rows) != len(prompt):
            came = 0 if rows is None else len(rows)
            raise ModelError(f"prompt_logprobs of {came} tokens came, of a prompt of {len(prompt)}")
        found = positions_of(rows, positions + 1, positions)
        entries = [entry for row in found for entry in row.values()]
        among = np.array([entry.rank for entry in entries], dtype=np.int64) <= kept
        of_row = np.repeat(np.arange(len(found)), [len(row) for row in found])
        ids = np.array(list(itertools.chain.from_iterable(found)), dtype=np.int64)
        counts = np.bincount(of_row[among], minlength=len(found))
        return Told(ids[among], _log_probs([entry.logprob for entry in entries])[among], counts)

    def next_entries(self, served: Served, prompt: list[int], kept: int) -> Told | None:
        asked = _request(served.name, prompt) | {"logprobs": kept, "return_tokens_as_token_ids": True}
        sampled = self._first_choice(asked).logprobs
        rows = sampled.top_logprobs if sampled is not None else None
        if not rows or rows[0] is None or not all(key.startswith(_ID) for key in rows[0]):
            return None
        ids = np.array([int(key.removeprefix(_ID)) for key in rows[0]], dtype=np.int64)
        return Told(ids, _log_probs(list(rows[0].values())), np.array([len(ids)]))

    def tokenize(self, served: Served, text: str) -> list[int]:
        content = self.client.post(
            "/tokenize", {"model": served.name, "prompt": text, "add_special_tokens": False}
        )
        tokens: list[int] = decoded(self.client, content, _Tokens).tokens
        return tokens

    def version_of(self, timeout_s: float) -> str:
        return ""

    def _first_choice(self, asked: dict[str, object]) -> _Choice:
        answer: _Completion = decoded(self.client, self.client.post(_COMPLETIONS, asked), _Completion)
        if not answer.choices:
            raise ModelError(f"the answer of {self.client.address} has no choices")
        return answer.choices[0]


def _request(model: str, prompt: list[int]) -> dict[str, object]:
    return {
        **{"model": model, "prompt": prompt, "max_tokens": 1, "n": 1, "stream": False, "echo": False},
        **{"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
        **{"presence_penalty": 0.0, "frequency_penalty": 0.0},
    }


def _log_probs(values: list[float | None]) -> NDArray[np.float64]:
    log_probs = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    log_probs[log_probs <= _NEVER] = -np.inf
    return log_probs
