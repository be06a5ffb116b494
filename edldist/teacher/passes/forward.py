"""From inputs to packed labels, all on the device, without waiting for it once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from edldist.errors import CodecError, ContractError, ModelError
from edldist.labels.codec import make_codec
from edldist.labels.comparison import Compared
from edldist.labels.grammar import CodecSpec
from edldist.labels.packing import Codec
from edldist.labels.places import Where, in_samples
from edldist.teacher.model.teacher import Teacher, refuse_nonfinite
from edldist.teacher.passes.kept_memory import KeptMemory
from edldist.teacher.passes.sequences import in_sequences, label_sequences, of_tokens
from edldist.teacher.passes.stopwatch import Stopwatch
from edldist.tracing.kinds import Kind
from edldist.wire.sequences import MARKS, labelled_rows

__all__ = ["Computed", "Forward", "Labelling", "PassTerms"]

logger = logging.getLogger(__name__)

_MOST_CODECS = 64
"""Of those that students ask for are kept: codecs are small, and made again if need be."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What a forward pass made; on an accelerator, perhaps still in the making.

    Attributes:
        outputs: of the model, samples first.
        asked: the inputs that are the codec's, samples first.
        packed: what travels, samples first.
        finite: bool [] where the outputs are, or None: if false, some value needs a closer look.
        where: what a row of the outputs is called.
        codec: that packed them; None for one that has nothing to look at more closely.
    """

    outputs: dict[str, Tensor]
    asked: dict[str, Tensor]
    packed: dict[str, Tensor]
    finite: Tensor | None
    where: Where
    codec: Codec | None = None


class PassTerms(NamedTuple):
    """How the labels of a pass are to be made: the same for all of its tasks.

    Attributes:
        largest: the most samples, or tokens, that the model gets at once; None: no bound.
        fixed: the labels must depend on nothing but the inputs.
        compared: pack what workers are compared by, and not in the codec.
        codec: pack in this one instead of the worker's own.
    """

    largest: int | None = None
    fixed: bool = False
    compared: bool = False
    codec: CodecSpec | None = None


class Labelling(Protocol):
    """From inputs to packed labels."""

    def vet(self, parts: Iterable[Mapping[str, Tensor]]) -> None:
        """Look at inputs while they are on the host; see ``Forward``."""
        ...

    def __call__(self, inputs: Mapping[str, Tensor], terms: PassTerms) -> Computed:
        """Label samples; see ``Forward``."""
        ...

    def refuse(self, computed: Computed) -> None:
        """Look closely at a suspect pass. Raises what is wrong with it."""
        ...

    def makes(self, codec: CodecSpec) -> str:
        """Why it cannot send its labels in a codec, beside its own; empty if it can."""
        ...


class Forward:
    """The model, then the codec. Owned by the compute thread.

    Args:
        teacher: the model.
        codec: packs what it returns.
        allow_nonfinite: let NaN and infinite labels through, where the codec does.
        watch: is told when the model and the codec begin and end.

    Raises:
        UnfitCodecError: the model lacks what the codec needs of it.
    """

    def __init__(
        self,
        teacher: Teacher,
        codec: Codec,
        allow_nonfinite: bool = False,
        watch: Stopwatch | None = None,
    ) -> None:
        self._teacher = teacher
        self._codec = codec.serving(teacher.model)
        self._compared = Compared()
        self._others: dict[str, Codec] = {}  # by how they are written; only the compute thread adds some
        self._allow_nonfinite = allow_nonfinite
        self._watch = watch or Stopwatch()
        self._memory = KeptMemory()
        self._said_what_counts = False

    def vet(self, parts: Iterable[Mapping[str, Tensor]]) -> None:
        """Look at inputs while they are on the host, where that waits for nothing.

        Args:
            parts: of the inputs of a pass, in order.

        Raises:
            ContractError: there are token ids that the model does not have.
        """
        first = 0
        for inputs in parts:
            marks = inputs.get(MARKS)
            self._teacher.refuse_ids(inputs, _shifted(first) if marks is None else of_tokens(marks.numpy()))
            first += next(iter(inputs.values())).shape[0]

    def makes(self, codec: CodecSpec) -> str:
        """Why it cannot send its labels in a codec, beside its own; empty if it can. For any thread.

        What only the outputs show, as that a vocabulary is smaller than the codec wants, a pass finds out.
        """
        try:
            made = make_codec(codec).serving(self._teacher.model)
        except CodecError as exc:
            return str(exc)
        strange = made.asks - self._codec.asks
        return f"codec {codec} asks for {', '.join(sorted(strange))}, which do not come" if strange else ""

    def _packs(self, codec: CodecSpec | None, compared: bool) -> Codec:
        """What packs the labels of a pass."""
        if compared or codec is None:
            return self._compared if compared else self._codec
        name = str(codec)
        if name not in self._others:
            if len(self._others) >= _MOST_CODECS:
                self._others.clear()
            self._others[name] = make_codec(codec).serving(self._teacher.model)
        return self._others[name]

    def __call__(self, inputs: Mapping[str, Tensor], terms: PassTerms) -> Computed:
        """Label samples.

        Args:
            inputs: on the device, samples first: the model's, and those that the codec asks for. Or the same
                of tokens, and their marks (``wire.sequences``).
            terms: of the pass.

        Raises:
            ModelError, CodecError: the model raised, or its outputs are no labels.
            Exception: whatever ``is_out_of_memory`` recognizes.
        """
        largest, fixed = terms.largest, terms.fixed
        asked = {name: tensor for name, tensor in inputs.items() if name in self._codec.asks}
        inputs = {name: tensor for name, tensor in inputs.items() if name not in asked}
        if not inputs.keys() - {MARKS}:
            raise ContractError(
                f"nothing came for the model: {', '.join(asked)} is for codec {self._codec.spec} alone. Pick "
                "what the model takes, too, with inputs= of the student's DistillLoader or LabelRequests"
            )
        samples = next(iter(inputs.values())).shape[0]
        where: Where = in_samples
        if MARKS in inputs:
            # Lengths decide shapes: an accelerator is waited for here, once a pass.
            marks = inputs[MARKS].cpu().numpy()
            where = in_sequences(marks)
            tokens = {name: tensor for name, tensor in inputs.items() if name != MARKS}
            if largest is not None and samples > largest and not self._said_what_counts:
                self._said_what_counts = True
                logger.warning(
                    "%d tokens of sequences came, and batch_size, %d, counts tokens of sequences: raise it "
                    "(--batch-size) to some thousands, or each goes through the model alone",
                    *(samples, largest),
                )
            try:
                with self._watch.stage(Kind.FORWARD):
                    outputs = label_sequences(self._teacher, tokens, marks, largest or samples, fixed)
            except ModelError as exc:
                self._teacher.explain(exc, tokens, of_tokens(marks))
                raise
            if asked:
                labelled = torch.from_numpy(labelled_rows(marks))
                asked = {name: tensor[labelled.to(tensor.device)] for name, tensor in asked.items()}
        else:
            try:
                with self._watch.stage(Kind.FORWARD):
                    outputs = self._of_samples(inputs, samples, largest or samples, fixed)
            except ModelError as exc:
                self._teacher.explain(exc, inputs, in_samples)
                raise
        with self._watch.stage(Kind.ENCODE):
            packs = self._packs(terms.codec, terms.compared)
            made, sound = packs.pack(outputs, asked, fixed=fixed)
            # By name: workers whose models name their outputs in another order send the same.
            packed = dict(sorted(made.items()))
            del made  # references that are not the model's, which are about to be counted
            cast = [n for n, tensor in packed.items() if n in outputs and tensor is not outputs[n]]
            packed = self._memory.own(packed, outputs)
            values = [packed[name] for name in cast]
            if not self._allow_nonfinite:
                values += [tensor for name, tensor in outputs.items() if name in packed]
            finite = _finite(values, sound)
        return Computed(outputs, asked, packed, finite, where, packs)

    def _of_samples(
        self, inputs: Mapping[str, Tensor], samples: int, largest: int, fixed: bool
    ) -> dict[str, Tensor]:
        if samples <= largest:
            return self._teacher(inputs, fixed=fixed)
        return _joined(
            [
                self._teacher({name: t[i : i + largest] for name, t in inputs.items()}, fixed=fixed)
                for i in range(0, samples, largest)
            ]
        )

    def refuse(self, computed: Computed) -> None:
        """Look closely at a suspect pass. Waits for the device.

        Raises:
            ModelError: a label is not finite, and that is not allowed.
            CodecError: the codec cannot hold a label.
        """
        outputs = computed.outputs
        if not self._allow_nonfinite:
            travelling = {name: outputs[name] for name in outputs if name in computed.packed}
            refuse_nonfinite(travelling, computed.where)
        if computed.codec is not None:
            computed.codec.check(outputs, computed.asked, computed.where)


def _finite(tensors: Iterable[Tensor], sound: Tensor | None) -> Tensor | None:
    # A sum costs a tenth of a look at each value. It may overflow where no value has: another reason to look.
    flags = [
        tensor.sum(dtype=max(tensor.dtype, torch.float32, key=lambda dtype: dtype.itemsize)).isfinite()
        for tensor in tensors
        if tensor.is_floating_point() and tensor.numel()
    ]
    if sound is not None:
        flags.append(sound)
    if len(flags) < 2:
        return flags[0] if flags else None
    home = next((flag.device for flag in flags if flag.device.type != "cpu"), flags[0].device)
    return torch.stack([flag.to(home, non_blocking=True) for flag in flags]).all()


def _shifted(first: int) -> Where:
    """What rows are called before which others came."""
    return lambda index: in_samples([index[0] + first, *index[1:]])


def _joined(pieces: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    try:
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    except (KeyError, RuntimeError) as exc:
        if isinstance(exc, torch.OutOfMemoryError):
            raise
        raise ModelError(
            "a pass that was cut into pieces for lack of memory gave outputs that differ in more than their "
            f"number of samples: {exc}. Use a smaller batch size"
        ) from exc
