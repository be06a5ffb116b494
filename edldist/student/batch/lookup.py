"""Under which keys the samples of a batch are kept, and what of them has to be labelled. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edldist.errors import ConfigError, InputError
from edldist.labels.gather import GATHER_IDS
from edldist.store.sample_key import KEY_BYTES, Keys, check_witness, keys_of_ids, keys_of_inputs
from edldist.student.batch.teacher_inputs import TeacherInputs
from edldist.student.inputs.ids import SampleIds
from edldist.student.queue.wanted import Wanted
from edldist.wire.texts import KINDS
from edldist.wire.transport import Buffer, payload

__all__ = ["Lookup", "SampleKeys"]

Flags: TypeAlias = NDArray[np.bool_]
Places: TypeAlias = NDArray[np.intp]


class Lookup:
    """What is known of the samples of a batch that one teacher sees.

    Attributes:
        keys: of each.
        ids: what they are called; None where the keys are digests of the inputs.
        witness: digests of the inputs, where the keys are none: of samples that were ``digested``.
        texts: the keys, one by one.
        runs: those that have to be labelled, as ``Wanted`` has it; None: all of them.
        found: how many had labels in the store.
    """

    __slots__ = ("found", "ids", "keys", "runs", "texts", "witness")

    def __init__(self, keys: Keys, ids: Sequence[int | str] | None = None) -> None:
        self.keys = keys
        self.ids = ids
        self.witness: Keys | None = None if ids is None else np.zeros_like(keys)
        memory = keys.tobytes()
        self.texts = [memory[at : at + KEY_BYTES] for at in range(0, len(memory), KEY_BYTES)]
        self.runs: tuple[tuple[int, int], ...] | None = None
        self.found = 0

    def lacking(self, wanted: Wanted) -> Wanted:
        """Of all that a teacher labels, what has no labels yet."""
        return wanted if self.runs is None else wanted._replace(runs=self.runs)

    def forget(self) -> None:
        """What was found is of no use any more."""
        self.runs, self.found = None, 0


class SampleKeys:
    """Makes the keys of a batch.

    In a deterministic job labels are a function of all samples of a cut, bit for bit, so the key of a sample
    is one of its cut and its place in that: labels that were computed beside other samples are never found.

    Args:
        ids: what samples are called; None: keys are digests of the inputs.
        data: which data set they belong to.
        fixed: whether cuts are fixed, each alone in its pass.
        cut: samples of each; None: all of a batch.

    Raises:
        ConfigError: samples are named, and their data set is not.
    """

    def __init__(self, ids: SampleIds | None, data: str, fixed: bool, cut: int | None) -> None:
        self.data = "" if ids is None else ids.data or data
        if ids is not None and not self.data:
            raise ConfigError(
                "ids= without the name of their data set: samples of two data sets may have one id. Name it "
                "in the job file's store.data, or in edldist.SampleIds(..., data='digits, version 2')"
            )
        self._ids = ids
        self._fixed = fixed
        self._cut = cut

    def of(self, batch: object, samples: int, inputs: TeacherInputs) -> Lookup:
        """The keys of the samples of a batch that a teacher sees.

        Args:
            batch: what the loop gets.
            samples: how many that has.

        Raises:
            InputError: its ids cannot be used.
        """
        if self._ids is None:
            return Lookup(self._in_cuts(_digests(inputs, 0, inputs.samples)))
        if inputs.wanted.ends is not None:
            raise InputError(
                "ids= is for inputs of one row each; sequences, whose labels depend on what is asked of "
                "them, are digested themselves: leave ids out"
            )
        if GATHER_IDS in inputs.tensors:
            raise InputError(
                f"ids= beside {GATHER_IDS!r}: which entries are asked for is no part of a sample's id. Leave "
                "ids out, so that the inputs are digested with them"
            )
        ids, seeds = self._ids(batch, samples)
        places = inputs.in_batch(range(inputs.samples))
        if inputs.places is None and inputs.samples != samples:
            raise InputError(
                f"a teacher sees {inputs.samples} of the {samples} samples of a batch, and nobody knows "
                "which: its labels cannot be kept by ids. Leave ids out"
            )
        its = [ids[place] for place in places]
        keys = keys_of_ids(self.data, its, None if seeds is None else [seeds[place] for place in places])
        return Lookup(self._in_cuts(keys), its)

    def whole_cuts(self, hit: Flags) -> Flags:
        """Of samples that were found, those that may be used: of deterministic cuts all, or none."""
        if not self._fixed:
            return hit
        size = self._cut or max(1, len(hit))
        edges = np.arange(0, len(hit), size)
        whole = np.logical_and.reduceat(hit, edges) if len(hit) else hit
        return np.asarray(np.repeat(whole, np.diff(np.append(edges, len(hit)))), np.bool_)

    @staticmethod
    def digest(lookup: Lookup, inputs: TeacherInputs, runs: Iterable[tuple[int, int]]) -> None:
        """Digest the inputs of samples that are named, as far as their keys are no digests."""
        if lookup.witness is not None:
            for start, stop in runs:
                lookup.witness[start:stop] = _digests(inputs, start, stop)

    @staticmethod
    def check(lookup: Lookup, inputs: TeacherInputs, hits: Places, kept: Keys | None, turn: int) -> None:
        """Compare what one sample looks like with what its labels were made of.

        Args:
            hits: the samples that were found.
            kept: digests of the inputs that their labels were made of.
            turn: which of them is looked at.

        Raises:
            StoreError: they differ.
        """
        if lookup.ids is None or kept is None:
            return
        one = turn % len(hits)
        sample = int(hits[one])
        at_hand = _digests(inputs, sample, sample + 1)
        check_witness(kept[one : one + 1], at_hand, lookup.ids[sample : sample + 1])

    def _in_cuts(self, keys: Keys) -> Keys:
        if not (self._fixed and len(keys)):
            return keys
        size = self._cut or len(keys)
        cut_keys = bytearray()
        for first in range(0, len(keys), size):
            cut = hashlib.blake2b(b"cut\0" + keys[first : first + size].tobytes(), digest_size=KEY_BYTES)
            for place in range(min(size, len(keys) - first)):
                digest = cut.copy()
                digest.update(b"\0%d" % place)
                cut_keys += digest.digest()
        return np.frombuffer(cut_keys, np.uint8).reshape(-1, KEY_BYTES)


def _digests(inputs: TeacherInputs, start: int, stop: int) -> Keys:
    """Digests of some samples as a teacher sees them, whatever is beside them in the batch."""
    layout = []
    frames: list[Buffer] = []
    first, last = inputs.span(start, stop)
    for (name, dtype, shape), frame in zip(inputs.layout, inputs.cut(start, stop), strict=True):
        memory = payload(frame)
        if dtype in KINDS:  # how wide a row is depends on the longest text of the batch
            memory, shape = _digested_texts(memory, last - first), (KEY_BYTES,)
        layout.append((name, dtype, shape))
        frames.append(memory)
    ends = inputs.wanted.ends
    rows = range(stop - start + 1) if ends is None else [end - first for end in ends[start : stop + 1]]
    return keys_of_inputs(layout, frames, rows)


def _digested_texts(memory: Buffer, rows: int) -> bytes:
    """A digest of each text (see ``wire.texts``)."""
    view = memoryview(memory).cast("B")
    width = len(view) // rows if rows else 0
    digests = bytearray()
    for at in range(0, width * rows, width or 1):
        length = int.from_bytes(view[at : at + 4], "little")
        digests += hashlib.blake2b(view[at + 4 : at + 4 + length], digest_size=KEY_BYTES).digest()
    return bytes(digests)
