"""The codecs by name: how a teacher's outputs become named tensors that travel, and those the loop's labels.

The worker encodes on its device, before the copy to the host. The student decodes where the loop wants its
tensors, after the copy to the device: what travels is small all the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor

from edldist.labels.dense import Dense
from edldist.labels.grammar import GRAMMAR, CodecSpec, check_spec, parse_spec

__all__ = ["Codec", "make_codec", "parse_codec"]


class Codec(Protocol):
    """Packs outputs, and unpacks what was packed. Stateless: any thread may use it.

    A codec works by samples. Rows of what it packed may be cut off, and put together with those of other
    forward passes, and decode to the labels of just these samples.
    """

    @property
    def spec(self) -> CodecSpec:
        """Name and parameters: what the greeting says, and all that ``make_codec`` needs."""
        ...

    def encode(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Named tensors to send, the samples first: ``check``, then ``pack``.

        Raises:
            CodecError: these outputs cannot be packed.
        """
        ...

    def pack(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """As ``encode``, without looking at values, so that no accelerator has to be waited for.

        A value that cannot be held becomes a non-finite one in what is returned: the mark by which
        the caller knows that ``check`` has something to say.

        Raises:
            CodecError: the shapes or dtypes cannot be packed.
        """
        ...

    def check(self, outputs: Mapping[str, Tensor]) -> None:
        """Look for values that cannot be packed. Waits for the device.

        Raises:
            CodecError: there are some.
        """
        ...

    def decode(self, packed: Mapping[str, Tensor]) -> dict[str, Any]:
        """What the training loop gets of what was packed, by the names of the outputs.

        Args:
            packed: as ``pack`` made them, samples first; on any device, and not to be written to.

        Returns:
            Labels of each output, on that device: a tensor, or a named tuple or data class of tensors,
            samples first in each of them.
        """
        ...


_CODECS: dict[str, Callable[..., Codec]] = {"dense": Dense}
"""Classes that take the parameters of their grammar by name."""

if _CODECS.keys() != GRAMMAR.keys():
    raise ImportError(f"codecs {sorted(_CODECS)} are implemented, and {sorted(GRAMMAR)} can be written")


def make_codec(spec: CodecSpec) -> Codec:
    """The codec that a greeting names.

    Raises:
        CodecError: this version has no such codec, or not with such parameters.
    """
    check_spec(spec)
    return _CODECS[spec.name](**spec.parameters)


def parse_codec(text: str) -> Codec:
    """The codec that a job file or an option names, as ``dense:fp16``.

    Raises:
        CodecError: unknown name or wrong parameters.
    """
    return make_codec(parse_spec(text))
