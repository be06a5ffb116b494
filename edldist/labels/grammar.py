"""How codecs are written: ``name[:parameter...]`` in job files and options, a ``CodecSpec`` on the wire.

Imports no torch, so that the launcher and the coordinator can read a codec without being able to run it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import msgspec

from edldist.errors import CodecError

__all__ = [
    "CODEC_FORMS",
    "GRAMMAR",
    "MOST_ENTRIES",
    "SMALLER_CODECS",
    "CodecSpec",
    "Parameter",
    "check_spec",
    "parse_spec",
]

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
        allowed: what ``form`` stands for, where that does not say it.
        optional: may be left out, and so must be all that follow.
        default: which may be written, and is the same as nothing.
    """

    name: str
    read: Callable[[str], _Value]
    form: str
    allowed: str = ""
    optional: bool = False
    default: _Value | None = None


def _one_of(*choices: str) -> Callable[[str], _Value]:
    def read(text: str) -> _Value:
        if text not in choices:
            raise ValueError(text)
        return text

    return read


def _count(text: str) -> _Value:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= MOST_ENTRIES):
        raise ValueError(text)
    return int(text)


def _between(low: float, high: float, *, with_low: bool) -> Callable[[str], _Value]:
    def read(text: str) -> _Value:
        value = float(text)
        if not (low <= value <= high and (with_low or value > low)):
            raise ValueError(text)
        return int(value) if value.is_integer() else value

    return read


MOST_ENTRIES = 65_536
"""Bound on the entries of the vocabulary that a codec keeps, or draws."""

_FLOATS = ("fp32", "fp16", "bf16")
_COUNT = f"a whole number from 1 to {MOST_ENTRIES:,}"


def _entries(name: str, letter: str) -> Parameter:
    return Parameter(name, _count, letter, _COUNT)


_MASS = Parameter("mass", _between(0, 1, with_low=False), "P", "a number above 0, up to 1")
_TEMPERATURE = Parameter(
    *("temperature", _between(0.01, 1000, with_low=True), "T", "a number from 0.01 to 1000"),
    optional=True,
    default=1,
)

GRAMMAR: dict[str, tuple[Parameter, ...]] = {
    "dense": (
        Parameter("dtype", _one_of(*_FLOATS), "|".join(_FLOATS), optional=True),
        Parameter("use", _one_of("softmax"), "softmax", optional=True),
    ),
    "int8": (),
    "topk": (_entries("kept", "K"), _TEMPERATURE),
    "topp": (_MASS, _entries("kept", "K"), _TEMPERATURE),
    "rs": (_entries("drawn", "N"), _TEMPERATURE),
    "head+rs": (_entries("kept", "M"), _entries("drawn", "N"), _TEMPERATURE),
    "gather": (_TEMPERATURE,),
    "hidden": (),
}
"""The codecs by name, and their parameters in the order in which they are written."""


SMALLER_CODECS = ("dense", "int8", "topk", "topp", "rs", "head+rs")
"""Those that need nothing but a teacher's outputs, so that a worker may send any labels in them."""


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
    if not least <= len(written) <= len(known):
        raise CodecError(f"no such codec {text!r:.100}; write it as {_form(name)}")
    parameters: dict[str, _Value] = {}
    for parameter, value in zip(known, written, strict=False):
        try:
            parameters[parameter.name] = parameter.read(value)
        except ValueError as exc:
            wrong = (
                f"{parameter.form} is {value!r:.50}, and has to be {parameter.allowed}"
                if parameter.allowed
                else f"{value!r:.50} is none of {parameter.form.replace('|', ', ')}"
            )
            raise CodecError(f"no such codec {text!r:.100}: {wrong}. Write it as {_form(name)}") from exc
    last = known[-1] if known else None
    if last is not None and last.default is not None and parameters.get(last.name) == last.default:
        del parameters[last.name]  # two ways to write one codec are one codec
    return CodecSpec(name, parameters)


def check_spec(spec: CodecSpec) -> None:
    """Refuse what came over the wire and could not have been written.

    Raises:
        CodecError: this version has no such codec, or not with such parameters.
    """
    if parse_spec(str(spec)) != spec:
        raise CodecError(f"no such codec {spec!r:.200}; this version has {CODEC_FORMS}")
