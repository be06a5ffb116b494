"""What a codec is: how a teacher's outputs become named tensors that travel, and those the loop's labels.

The worker packs on its device, before the copy to the host. The student decodes where the loop wants its
tensors, after the copy to the device: what travels is small all the way.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from edldist.errors import UnfitCodecError
from edldist.labels.grammar import CodecSpec
from edldist.labels.places import Where, in_samples
from edldist.labels.typed import TopKLabels

__all__ = ["NO_INPUTS", "Codec", "Packed"]

NO_INPUTS: Mapping[str, Tensor] = {}


class Packed(NamedTuple):
    """What travels of some outputs.

    Attributes:
        tensors: by the names under which they travel, samples first.
        sound: bool [], on the device: whether the codec could hold every value; if false, ``check`` has
            something to say. None where a value that it could not hold is a non-finite one in ``tensors``.
    """

    tensors: dict[str, Tensor]
    sound: Tensor | None = None


class Codec(ABC):
    """Packs outputs, and unpacks what was packed. Stateless: any thread may use it.

    A codec works by samples. Rows of what it packed may be cut off, and put together with those of other
    forward passes, and decode to the labels of just these samples.

    An output that travels under its own name is the caller's to look at, where labels have to be finite.
    One that travels under another name is the codec's: it knows which values mean something (a logit of
    ``-inf`` is a class of probability 0).

    Attributes:
        spec: name and parameters: what the greeting says, and all that ``make_codec`` needs.
        asks: names of the inputs that are the codec's, and not the model's: what a student asks about.
    """

    spec: CodecSpec
    asks: ClassVar[frozenset[str]] = frozenset()

    def serving(self, model: Any) -> Codec:
        """The codec as a worker with this model has it, where more than its outputs is needed to pack them.

        Raises:
            UnfitCodecError: the model lacks it.
        """
        return self

    def encode(
        self, outputs: Mapping[str, Tensor], asked: Mapping[str, Tensor] = NO_INPUTS, *, fixed: bool = False
    ) -> dict[str, Tensor]:
        """Named tensors to send, the samples first: ``check``, then ``pack``.

        Raises:
            CodecError: these outputs cannot be packed.
        """
        self.check(outputs, asked)
        return self.pack(outputs, asked, fixed=fixed).tensors

    @abstractmethod
    def pack(
        self, outputs: Mapping[str, Tensor], asked: Mapping[str, Tensor] = NO_INPUTS, *, fixed: bool = False
    ) -> Packed:
        """As ``encode``, without looking at values, so that no accelerator has to be waited for.

        Args:
            outputs: of the model, samples first.
            asked: the inputs that ``asks`` names, as far as they came, samples first; on any device.
            fixed: what is packed must depend on nothing but the outputs; else a codec may draw anew each
                time.

        Raises:
            UnfitCodecError: the shapes or dtypes cannot be packed.
        """

    @abstractmethod
    def check(
        self,
        outputs: Mapping[str, Tensor],
        asked: Mapping[str, Tensor] = NO_INPUTS,
        where: Where = in_samples,
    ) -> None:
        """Look for values that cannot be packed. Waits for the device.

        Args:
            where: what a row is called, for the message.

        Raises:
            CodecError: there are some.
        """

    def top_entries(self) -> int:
        """How many of a row's most probable entries it packs, where a teacher tells no more (``pack_top``).

        Raises:
            UnfitCodecError: it needs the whole distribution.
        """
        raise self._needs_all()

    def pack_top(self, outputs: Mapping[str, TopKLabels]) -> Packed:
        """As ``pack``, of a teacher that has no logits and knows the most probable entries all the same.

        What travels is what ``pack`` would have made of the logits: the loop cannot tell.

        Args:
            outputs: by name, samples first, ``top_entries`` of each row at temperature 1. A row of NaN is one
                of which nothing is known: it decodes to NaN.

        Raises:
            UnfitCodecError: as ``top_entries``, or these are not so many.
        """
        raise self._needs_all()

    def _needs_all(self) -> UnfitCodecError:
        return UnfitCodecError(
            f"codec {self.spec} needs the whole distribution, and this teacher tells the most probable "
            "entries and the mass of all others. Take topk:K, or topp:P:K"
        )

    @abstractmethod
    def decode(self, packed: Mapping[str, Tensor]) -> dict[str, Any]:
        """What the training loop gets of what was packed, by the names of the outputs.

        Args:
            packed: as ``pack`` made them, samples first; on any device, and not to be written to.

        Returns:
            Labels of each output, on that device: a tensor, or typed labels (``edldist.labels.typed``),
            samples first in each tensor of them.
        """
