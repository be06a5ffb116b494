"""The codecs by name."""

from __future__ import annotations

from collections.abc import Callable

from edldist.labels.dense import Dense
from edldist.labels.eight_bits import Int8
from edldist.labels.gather import Gather
from edldist.labels.grammar import GRAMMAR, CodecSpec, check_spec, parse_spec
from edldist.labels.hidden import Hidden
from edldist.labels.packing import Codec
from edldist.labels.sampled import HeadAndSampled, Sampled
from edldist.labels.top import Top, TopMass

__all__ = ["make_codec", "parse_codec"]

_CODECS: dict[str, Callable[..., Codec]] = {
    "dense": Dense,
    "int8": Int8,
    "topk": Top,
    "topp": TopMass,
    "rs": Sampled,
    "head+rs": HeadAndSampled,
    "gather": Gather,
    "hidden": Hidden,
}
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
