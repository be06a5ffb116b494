"""How codecs are written: ``name[:parameter...]`` in job files and options, a ``CodecSpec`` on the wire.

Imports no torch, so that the launcher and the coordinator can read a codec without being able to run it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import msgspec

from edldist.errors import CodecError

__all__ = ["CODEC_FORMS", "GRAMMAR", "CodecSpec", "Parameter", "check_spec", "parse_spec"]

_Name = Annotated[str, msgspec.Meta(max_length=256)]
_Value = Annotated[str, msgspec.Meta(max_length=256)] | int | float | bool


class CodecSpec(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A codec and its parameters, as they travel in a greeting. Any pair can be held; few are codecs.

    Attributes:
        name: of the codec, as ``dense``.
        parameters: by name, as ``{"dtype": "fp16"}``; an optional one that is left out is not in it.
    """

    name: _Name
    parameters: Annotated[dict[_Name, _Value], msgspec.Meta(max_length=16)] = {}

    def __str__(self) -> str:
        """As it is written in a job file: ``dense:fp16``."""
        return ":".join([self.name, *map(str, self.parameters.values())])


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a codec.

    Attributes:
        name: in ``CodecSpec.parameters``.
        read: its value from text; raises ``ValueError`` for any other text.
        form: what may be written, as ``fp32|fp16``.
        optional: may be left out, and so must be all that follow.
    """

    name: str
    read: Callable[[str], _Value]
    form: str
    optional: bool = False


def _one_of(*choices: str) -> Callable[[str], _Value]:
    def read(text: str) -> _Value:
        if text not in choices:
            raise ValueError(text)
        return text

    return read


_FLOATS = ("fp32", "fp16", "bf16")

GRAMMAR: dict[str, tuple[Parameter, ...]] = {
    "dense": (Parameter("dtype", _one_of(*_FLOATS), "|".join(_FLOATS), optional=True),),
}
"""The codecs by name, and their parameters in the order in which they are written."""


def _form(name: str) -> str:
    parts = (f"[:{p.form}]" if p.optional else f":{p.form}" for p in GRAMMAR[name])
    return name + "".join(parts)


CODEC_FORMS = " · ".join(map(_form, GRAMMAR))
"""Every codec as it may be written, for messages and help."""


def parse_spec(text: str) -> CodecSpec:
    """The codec that a job file or an option names.

    Raises:
        CodecError: there is no such codec, or its parameters are wrong.
    """
    name, *written = text.split(":")
    known = GRAMMAR.get(name)
    if known is None:
        raise CodecError(f"no such codec {text!r:.100}; this version has {CODEC_FORMS}")
    least = sum(not parameter.optional for parameter in known)
    parameters: dict[str, _Value] = {}
    try:
        if not least <= len(written) <= len(known):
            raise ValueError("too few parameters, or too many")
        for parameter, value in zip(known, written, strict=False):
            parameters[parameter.name] = parameter.read(value)
    except ValueError as exc:
        raise CodecError(f"no such codec {text!r:.100}; write it as {_form(name)}") from exc
    return CodecSpec(name, parameters)


def check_spec(spec: CodecSpec) -> None:
    """Refuse what came over the wire and could not have been written.

    Raises:
        CodecError: this version has no such codec, or not with such parameters.
    """
    if parse_spec(str(spec)) != spec:
        raise CodecError(f"no such codec {spec!r:.200}; this version has {CODEC_FORMS}")
