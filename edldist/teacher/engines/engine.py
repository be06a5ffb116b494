"""An engine that was looked at, and stands where a loaded model would."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edldist.errors import ConfigError
from edldist.teacher.engines.address import EngineAddress
from edldist.teacher.engines.client import Client, RefusedError
from edldist.teacher.engines.entries import TopEntries, checked
from edldist.teacher.engines.preflight import await_engine, check_answers, choose_model
from edldist.teacher.engines.protocol import Protocol
from edldist.teacher.engines.served_tokens import ServedTokens
from edldist.teacher.engines.settings import EngineSettings
from edldist.teacher.engines.sglang import SGLang
from edldist.teacher.engines.vllm import VLLM
from edldist.vocabulary.sources import tokens_of

__all__ = ["Engine"]

logger = logging.getLogger(__name__)

_PROTOCOLS: dict[str, type[Protocol]] = {"vllm": VLLM, "sglang": SGLang}
_NAME_CHARACTERS = 256
_WORKERS_FAULT = (401, 403, 404)
"""Statuses that no sample is to blame for: the key or the model is not what it was at the start."""


class Engine:
    """What a worker knows of an engine, and the threads that ask it.

    Threads: ``label`` is for any; each request is one of ``concurrency`` threads of this object's own, which
    end with ``close``.

    Args:
        reference: ``vllm:http://HOST:PORT[#NAME]``, or ``sglang:...``.
        kwargs: see ``EngineSettings``.
        kept: entries that labels keep.

    Attributes:
        path: the reference.
        identity: kind and served name: what workers of one group call the model, whichever engine they ask.
        tokenizer: digest of the students' tokenizer, against which the engine's was held, or empty.
        digest: where a digest of weights would be: what the engine says that it serves.
        device: of the labels: the host.
        context: most tokens of a request, or None where the engine does not say.
        vocabulary: entries of the vocabulary.
        tokens: of the tokenizer that is given, or None.

    Raises:
        ConfigError, ModelError: it is not one that could label.
        EngineLostError: it does not answer.
    """

    device = torch.device("cpu")

    def __init__(self, reference: str, kwargs: Mapping[str, Any], kept: int) -> None:
        address = EngineAddress.parse(reference)
        settings = EngineSettings.read(reference, kwargs)
        known = ServedTokens.read(reference, settings)
        if kept > known.size:
            raise ConfigError(
                f"model {reference}: codec topk:{kept} of a vocabulary of {known.size}: lower K"
            )
        self._client = Client(address, settings)
        self._kept = kept
        try:
            self._protocol = _PROTOCOLS[address.kind](self._client)
            served = choose_model(await_engine(self._client, settings), self._protocol)
            known.compare(self._protocol, served)
            check_answers(self._protocol, served, kept, known.size)
        except BaseException:
            self._client.close()
            raise
        self._served = served
        self.path = reference
        self.identity = f"{address.kind}:{served.name}"[:_NAME_CHARACTERS]
        self.tokenizer = known.digest
        root = PurePath(served.root).name or served.name
        self.digest = " ".join(filter(None, ("served:", root, served.version)))[:_NAME_CHARACTERS]
        self.context = served.context
        self.vocabulary = known.size
        self.tokens = None if known.tokenizer is None else tokens_of(known.tokenizer)
        self._threads = concurrent.futures.ThreadPoolExecutor(settings.concurrency, "edldist-engine")
        logger.info(
            "%s serves %s (%s), a context of %s tokens, a vocabulary of %s; up to %d requests under way",
            *(address, served.name, self.digest, served.context, known.size, settings.concurrency),
        )
        if not known.digest:
            logger.warning("no tokenizer is given: nobody has looked whether the engine's is the students'")

    @property
    def lost(self) -> bool:
        """Whether it is of no use any more. For any thread."""
        return self._client.lost is not None

    def needed(self, length: int, last: int) -> int:
        """How much of the context a sequence takes; see ``Protocol.needed``."""
        return self._protocol.needed(length, last)

    def label(self, tokens: NDArray[np.int64], positions: NDArray[np.int64]) -> Future[TopEntries]:
        """Ask what comes after tokens of a sequence.

        Args:
            tokens: int64 [L], within the vocabulary.
            positions: int64 [P], increasing, each below L.

        Returns:
            Of the positions, in their order; or ``ModelError``, or ``EngineLostError``.
        """
        return self._threads.submit(self._label, tokens, positions)

    def close(self) -> None:
        """End what is under way. For any thread."""
        self._client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _label(self, tokens: NDArray[np.int64], positions: NDArray[np.int64]) -> TopEntries:
        try:
            told = self._protocol.prompt_entries(self._served, tokens, positions, self._kept)
        except RefusedError as exc:
            if exc.status in _WORKERS_FAULT:
                raise self._client.lose(str(exc)) from exc
            raise
        return checked(told, positions, self._kept, self.vocabulary)
