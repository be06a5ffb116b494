"""What an HTTP engine's answers cost the worker in front of it: bytes a token, and tokens/s of one core.

Answers as vLLM and SGLang send them, of 1,024 tokens and a vocabulary of 50,257, are read, checked and packed
for ``topk:K``. The engine is left out: what it takes is its own.

``python -m edldist_benchmarks.answers`` prints the whole table.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any, cast

import numpy as np
import torch

from edldist.labels.codec import parse_codec
from edldist.labels.typed import TopKLabels
from edldist.teacher.engines.client import Client
from edldist.teacher.engines.entries import checked
from edldist.teacher.engines.protocol import Protocol, Served
from edldist.teacher.engines.sglang import SGLang
from edldist.teacher.engines.vllm import VLLM
from edldist_benchmarks.figures import Figure, Result, Settings

__all__ = ["measure_answers"]

TOKENS, VOCABULARY = 1024, 50_257
KEPT = (20, 64, 128)


class _Said:
    """Answers what it was given."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def post(self, path: str, document: Any) -> bytes:
        return self.content


def measure_answers(settings: Settings) -> Result:
    """Each protocol with each number of entries."""
    figures = []
    for kept in KEPT:
        for name, kind, content in (("vLLM", VLLM, _of_vllm(kept)), ("SGLang", SGLang, _of_sglang(kept))):
            protocol = cast(type[Protocol], kind)(cast(Client, _Said(content)))
            what = f"topk:{kept} of {name}, {len(content) / TOKENS:,.0f} bytes a token"
            rate = TOKENS / _seconds(protocol, kept, settings.repeats)
            figures.append(Figure(what, rate, "tokens/s of a core", None, ""))
    return Result(figures, notes=[f"answers of {TOKENS:,} tokens; a vocabulary of {VOCABULARY:,}"])


def _seconds(protocol: Protocol, kept: int, repeats: int) -> float:
    """CPU time on one thread."""
    codec, threads = parse_codec(f"topk:{kept}"), torch.get_num_threads()
    tokens, positions = np.arange(TOKENS), np.arange(TOKENS - 1)
    torch.set_num_threads(1)
    taken = []
    for _ in range(max(3, repeats)):
        begun = time.process_time()
        told = protocol.prompt_entries(Served("model"), tokens, positions, kept)
        entries = checked(told, positions, kept, VOCABULARY)
        labels = TopKLabels(
            *map(torch.from_numpy, (entries.ids, entries.log_probs, entries.log_tail)), VOCABULARY
        )
        codec.pack_top({"logits": labels})
        taken.append(time.process_time() - begun)
    torch.set_num_threads(threads)
    return statistics.median(taken)


def _entries(kept: int) -> list[list[tuple[int, float]]]:
    """Of each token but the first one, the most probable first: a Zipf law in an order of its own."""
    chance = np.random.default_rng(0)
    law = -np.log(np.arange(1, VOCABULARY + 1))
    law -= np.log(np.exp(law).sum())
    values = law[:kept].astype(np.float32).astype(float).tolist()
    return [
        list(zip(chance.choice(VOCABULARY - 1, kept, replace=False).tolist(), values, strict=True))
        for _ in range(TOKENS - 1)
    ]


def _of_vllm(kept: int) -> bytes:
    own = {str(VOCABULARY - 1): {"logprob": -12.123456001281738, "rank": 9000, "decoded_token": " word"}}
    rows = [
        own
        | {
            str(token): {"logprob": value, "rank": rank, "decoded_token": " word"}
            for rank, (token, value) in enumerate(row, 1)
        }
        for row in _entries(kept)
    ]
    choice = {"index": 0, "text": " word", "logprobs": None, "prompt_logprobs": [None, *rows]}
    return _json({"id": "cmpl-1", "object": "text_completion", "choices": [choice]})


def _of_sglang(kept: int) -> bytes:
    rows = [[[value, token, None] for token, value in row] for row in _entries(kept)]
    own = [[-12.123456001281738, VOCABULARY - 1, None]] * TOKENS
    return _json(
        {"text": "", "meta_info": {"input_token_logprobs": own, "input_top_logprobs": [None, *rows]}}
    )


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


if __name__ == "__main__":
    for figure in measure_answers(Settings(repeats=7)).figures:
        print(f"{figure.what}: {figure.value:,.0f} {figure.unit}")
