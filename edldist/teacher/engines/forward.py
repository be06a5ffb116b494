"""From inputs to packed labels, by way of an engine."""

from __future__ import annotations

import concurrent.futures
import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edldist.errors import ContractError, EngineLostError, ModelError, UnfitCodecError
from edldist.labels.grammar import CodecSpec
from edldist.labels.packing import Codec
from edldist.labels.places import in_samples
from edldist.labels.typed import TopKLabels
from edldist.teacher.engines.engine import Engine
from edldist.teacher.engines.entries import TopEntries
from edldist.teacher.passes.forward import Computed, PassTerms
from edldist.wire.sequences import ASKED, MARKS, WHOLE, ends_of

__all__ = ["EngineForward"]

logger = logging.getLogger(__name__)

_IDS, _MASK = "input_ids", "attention_mask"
_OUTPUT = "logits"


@dataclass(frozen=True, slots=True)
class _Sequence:
    """One request: int64 [L] tokens, int64 [P] positions of them, and where their labels go, int64 [P]."""

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    rows: NDArray[np.int64]


class EngineForward:
    """Asks for each sequence by itself, all of a pass at once. Any thread may call it.

    Args:
        engine: labels.
        codec: packs what it tells.

    Raises:
        UnfitCodecError: the codec needs more than the most probable entries.
    """

    def __init__(self, engine: Engine, codec: Codec) -> None:
        self._engine = engine
        self._codec = codec
        self._kept = codec.top_entries()
        self._said_fixed = self._said_what_counts = False

    def makes(self, codec: CodecSpec) -> str:
        """Why it cannot send its labels in a codec, beside its own; empty if it can. For any thread."""
        return f"an engine was asked for what codec {self._codec.spec} needs, and labels come in that alone"

    def __call__(self, inputs: Mapping[str, Tensor], terms: PassTerms) -> Computed:
        """Label tokens.

        Args:
            inputs: packed ``input_ids`` and their marks (``wire.sequences``); or ``input_ids`` [B, S], and an
                ``attention_mask`` where there is padding, of which labels are NaN.
            terms: of the pass. The engine makes its own batches, and what else it computes at that time
                decides about last digits, even of what is to be fixed. Labels are all that it tells, and are
                what workers are compared by. Another codec than its own ``makes`` refuses.

        Returns:
            Labels of the tokens whose labels are asked for, in their order; or [B, S, ...].

        Raises:
            UnfitCodecError: another codec is asked for.
            ContractError: it takes other inputs, a sequence is longer than its context, or a token is none.
            ModelError: an answer lacks something.
            EngineLostError: it does not answer any more.
        """
        largest = terms.largest
        if terms.codec is not None:
            raise UnfitCodecError(self.makes(terms.codec))
        if terms.fixed and not self._said_fixed:
            self._said_fixed = True
            logger.warning(
                "a deterministic job asks an engine, whose last digits depend on what else it computes: "
                "each sample is labelled once, and twice the same run may give other last digits"
            )
        sequences, shape = self._cut(inputs)
        if largest is not None and len(shape) == 1 and shape[0] > largest and not self._said_what_counts:
            self._said_what_counts = True
            logger.warning(
                "%d tokens of sequences came, and batch_size, %d, counts tokens of sequences: raise it "
                "(--batch-size) to some thousands, or few requests are under way at once",
                *(shape[0], largest),
            )
        self._check(sequences)
        requests: list[Future[TopEntries]] = []
        try:
            requests += [self._engine.label(each.tokens, each.positions) for each in sequences]
            labels = _joined(sequences, requests, shape, self._kept, self._engine.vocabulary)
        except RuntimeError as exc:  # the threads that ask are gone
            raise EngineLostError(f"model {self._engine.path}: the worker ends") from exc
        finally:
            for request in requests:
                request.cancel()
        return Computed({}, {}, self._codec.pack_top({_OUTPUT: labels}).tensors, None, in_samples)

    def vet(self, parts: Iterable[Mapping[str, Tensor]]) -> None:
        """Nothing to look at in advance: a pass begins on the host."""

    def refuse(self, computed: Computed) -> None:
        """Nothing to look at more closely: answers were, when they came."""

    def _cut(self, inputs: Mapping[str, Tensor]) -> tuple[list[_Sequence], tuple[int, ...]]:
        """The sequences, and the shape of all their labels' places."""
        names = {"0": _IDS, "1": _MASK}
        named = {names.get(name, name): tensor for name, tensor in inputs.items()}
        ids, marks = named.get(_IDS), named.get(MARKS)
        wrong = sorted(named.keys() - {_IDS, MARKS if marks is not None else _MASK})
        dims = 1 if marks is not None else 2
        if ids is None or wrong or ids.is_floating_point() or ids.dtype is torch.bool or ids.dim() != dims:
            sent = ", ".join(
                f"{name!r} {str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
                for name, tensor in named.items()
                if name != MARKS
            )
            raise ContractError(
                f"model {self._engine.path} takes token ids, integers {_IDS!r}, and {_MASK!r} where they "
                f"are padded; the student sends {sent}. Pick these with inputs= of the student's "
                f"DistillLoader or LabelRequests: Sequences({_IDS!r}, mask={_MASK!r}), or both by name"
            )
        tokens = ids.to(torch.int64).numpy()
        if marks is not None:
            return _packed(tokens, marks.numpy(), self._engine.path), (tokens.shape[0],)
        return _padded(tokens, named.get(_MASK), self._engine.path), tokens.shape

    def _check(self, sequences: list[_Sequence]) -> None:
        engine = self._engine
        for number, each in enumerate(sequences):
            outside = (each.tokens < 0) | (each.tokens >= engine.vocabulary)
            if outside.any():
                raise ContractError(
                    f"sample {number} of the task has token {int(each.tokens[outside][0])}, outside of the "
                    f"vocabulary of model {engine.path}, {engine.vocabulary:,}"
                )
            needed = engine.needed(len(each.tokens), int(each.positions[-1]))
            if engine.context is not None and needed > engine.context:
                raise ContractError(
                    f"model {engine.path} has a context of {engine.context:,} tokens (max_model_len), and "
                    f"sample {number} of the task, of {len(each.tokens):,}, needs {needed:,}: cut sequences "
                    "where batches are made"
                )


def _packed(tokens: NDArray[np.int64], marks: NDArray[np.uint8], path: str) -> list[_Sequence]:
    if marks[0] & WHOLE:
        raise ContractError(
            f"model {path} labels tokens, and one label of each sequence is asked for: leave whole=True out"
        )
    sequences, first = [], 0
    for start, end in zip(*ends_of(marks), strict=True):
        positions = np.flatnonzero(marks[start:end] & ASKED)
        rows = np.arange(first, first + len(positions))
        first += len(positions)
        sequences.append(_Sequence(tokens[start:end], positions, rows))
    return sequences


def _padded(tokens: NDArray[np.int64], mask: Tensor | None, path: str) -> list[_Sequence]:
    real = np.ones(tokens.shape, dtype=bool) if mask is None else mask.numpy() != 0
    if real.shape != tokens.shape:
        raise ContractError(
            f"model {path}: {_MASK!r} is {list(real.shape)}, and {_IDS!r} {list(tokens.shape)}"
        )
    sequences = []
    for number, row in enumerate(real):
        places = np.flatnonzero(row)
        if not len(places):
            continue
        if places[-1] - places[0] + 1 != len(places):
            raise ContractError(
                f"model {path}: {_MASK!r} of sample {number} of the task has padding between tokens"
            )
        rows = number * tokens.shape[1] + places
        sequences.append(_Sequence(tokens[number][places], np.arange(len(places)), rows))
    return sequences


def _joined(
    sequences: list[_Sequence],
    requests: list[Future[TopEntries]],
    shape: tuple[int, ...],
    kept: int,
    vocabulary: int,
) -> TopKLabels:
    """Labels at their places; NaN where none were asked for."""
    concurrent.futures.wait(requests, return_when=concurrent.futures.FIRST_EXCEPTION)
    failed = [each for each in requests if each.done() and not each.cancelled() and each.exception()]
    lost = next((each for each in failed if isinstance(each.exception(), EngineLostError)), None)
    if lost is not None:
        lost.result()
    count = sum(len(each.rows) for each in sequences) if len(shape) == 1 else int(np.prod(shape))
    ids = np.zeros((count, kept), dtype=np.int64)
    log_probs = np.full((count, kept), np.nan, dtype=np.float32)
    log_tail = np.full(count, np.nan, dtype=np.float32)
    for number, (each, request) in enumerate(zip(sequences, requests, strict=True)):
        if failed and request not in failed:
            continue
        try:
            entries = request.result()
        except ModelError as exc:
            raise ModelError(f"sample {number} of the task: {exc}") from exc
        ids[each.rows], log_probs[each.rows] = entries.ids, entries.log_probs
        log_tail[each.rows] = entries.log_tail
    places = (count,) if len(shape) == 1 else shape
    return TopKLabels(
        torch.from_numpy(ids).view(*places, kept),
        torch.from_numpy(log_probs).view(*places, kept),
        torch.from_numpy(log_tail).view(places),
        vocabulary,
    )
