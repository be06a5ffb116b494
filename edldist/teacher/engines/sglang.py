"""SGLang's ``/generate`` with ``top_logprobs_num``."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edldist.errors import ModelError
from edldist.teacher.engines.client import RefusedError
from edldist.teacher.engines.connections import NoAnswerError
from edldist.teacher.engines.entries import Told
from edldist.teacher.engines.protocol import Protocol, Served, decoded, positions_of

__all__ = ["SGLang"]

_GENERATE = "/generate"
_MODEL_INFO = ("/model_info", "/get_model_info")  # the second one is what older ones have

_Entry = tuple[float | None, int, Any]
"""Log-probability, id, and the text or None."""


class _Meta(msgspec.Struct, gc=False):
    weight_version: str | None = None
    input_token_logprobs: list[_Entry] | None = None
    input_top_logprobs: list[list[_Entry] | None] | None = None
    output_top_logprobs: list[list[_Entry] | None] | None = None


class _Generated(msgspec.Struct, gc=False):
    meta_info: _Meta


class _Tokens(msgspec.Struct, gc=False):
    tokens: list[int]


class _ModelInfo(msgspec.Struct, gc=False):
    weight_version: str | None = None


class SGLang(Protocol):
    """Of ``input_top_logprobs``, which begins at ``logprob_start_len``, entry j is what was told of token
    start + j, None for the first one: what comes before it was not looked at. Nothing is sampled."""

    spare: ClassVar[int] = 0
    raise_cap: ClassVar[str] = "lower K, or look for a limit in how it was started"

    def _prompt_entries(
        self, served: Served, prompt: list[int], positions: NDArray[np.int64], kept: int
    ) -> Told:
        start = int(positions[0])
        asked = _request(prompt, 0) | {"logprob_start_len": start, "top_logprobs_num": kept}
        answer = self._generated(asked)
        if served.version and answer.weight_version not in (None, served.version):
            raise self.client.lose(
                f"its weights are of version {answer.weight_version!r} now, and were of {served.version!r}"
            )
        rows = answer.input_top_logprobs
        if rows is None or len(rows) != len(prompt) - start:
            raise ModelError(
                f"input_top_logprobs of {0 if rows is None else len(rows)} tokens came, of "
                f"{len(prompt) - start} from logprob_start_len on"
            )
        return _told(positions_of(rows, positions + 1 - start, positions))

    def next_entries(self, served: Served, prompt: list[int], kept: int) -> Told | None:
        rows = self._generated(_request(prompt, 1) | {"top_logprobs_num": kept}).output_top_logprobs
        return None if not rows or rows[0] is None else _told([rows[0]])

    def tokenize(self, served: Served, text: str) -> list[int]:
        document = {"model": served.name, "prompt": text, "add_special_tokens": False}
        try:
            tokens: list[int] = decoded(self.client, self.client.post("/tokenize", document), _Tokens).tokens
            return tokens
        except RefusedError as exc:
            if exc.status not in (404, 405):
                raise
        asked = {key: value for key, value in _request([], 0).items() if key != "input_ids"}
        rows = self._generated(asked | {"text": text, "logprob_start_len": 0}).input_token_logprobs
        return [entry[1] for entry in rows or ()]

    def version_of(self, timeout_s: float) -> str:
        for path in _MODEL_INFO:
            try:
                status, content = self.client.get(path, timeout_s)
            except NoAnswerError:
                return ""
            if status == 200:
                return decoded(self.client, content, _ModelInfo).weight_version or ""
        return ""

    def _generated(self, asked: dict[str, object]) -> _Meta:
        answer: _Generated = decoded(self.client, self.client.post(_GENERATE, asked), _Generated)
        return answer.meta_info


def _request(prompt: list[int], sampled: int) -> dict[str, object]:
    return {
        **{"input_ids": prompt, "return_logprob": True, "return_text_in_logprobs": False, "stream": False},
        "sampling_params": {"max_new_tokens": sampled, "temperature": 1.0, "top_p": 1.0, "top_k": -1},
    }


def _told(rows: list[list[_Entry]]) -> Told:
    entries = [entry for row in rows for entry in row]
    return Told(
        np.array([entry[1] for entry in entries], dtype=np.int64),
        np.array([np.nan if entry[0] is None else entry[0] for entry in entries], dtype=np.float64),
        np.array([len(row) for row in rows], dtype=np.int64),
    )
