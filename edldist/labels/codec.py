"""The codecs by name. A codec packs a teacher's outputs on the worker's device before they travel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from edldist.errors import CodecError
from edldist.labels.dense import Dense

__all__ = ["Codec", "parse_codec"]


class Codec(Protocol):
    """Packs outputs. Stateless; used by the worker's compute thread."""

    @property
    def name(self) -> str:
        """Name with parameters, as in the job file and in each header: ``dense:fp16``."""
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


_CODECS: dict[str, Callable[[str], Codec]] = {"dense": Dense}


def parse_codec(text: str) -> Codec:
    """The codec of a name with parameters.

    Raises:
        CodecError: unknown name or wrong parameters.
    """
    name, _, parameters = text.partition(":")
    try:
        make = _CODECS[name]
    except KeyError:
        raise CodecError(f"unknown codec {text!r}; there are: {', '.join(_CODECS)}") from None
    return make(parameters)
