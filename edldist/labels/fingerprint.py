"""What makes the labels of one teacher worker those of another: compared before the two may label one batch.

Imports no torch: the coordinator compares fingerprints too.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from edldist.errors import ConfigError
from edldist.labels.grammar import CodecSpec

__all__ = ["MOST_TOKENS", "VERSION_FORM", "Fingerprint", "VocabularyMark", "check_version"]

VERSION_FORM = "up to 100 printable characters, without a space at either end"

_Text = Annotated[str, msgspec.Meta(max_length=1_000)]
_Name = Annotated[str, msgspec.Meta(max_length=256)]
_SHOWN = 8  # output names in a message


MOST_TOKENS = 1 << 22
"""Bound on the tokens of a vocabulary."""


class VocabularyMark(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What tells which token has which id, in few bytes.

    Attributes:
        size: one more than the largest id.
        digest: of all tokens in the order of their ids (``edldist.vocabulary.tokens``).
    """

    size: Annotated[int, msgspec.Meta(ge=1, le=MOST_TOKENS)]
    digest: _Name

    def __str__(self) -> str:
        return f"{self.size:,} tokens ({self.digest[:12]})"


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all workers of a teacher group have in common, or else are not one teacher.

    Attributes:
        model: its reference, ``package.module:factory``; ``hf:CLASS`` of a Hugging Face folder, which may lie
            elsewhere on another host; kind and served name of an HTTP engine, ``vllm:NAME``.
        weights: digest of the parameters and buffers of an ``nn.Module`` (``edldist.teacher.model.digest``);
            what an engine says that it serves; empty for other callables, of which nobody can tell what they
            compute with.
        tokenizer: digest of the tokenizer that lies beside a Hugging Face model, or is given to hold an
            engine's against; or empty.
        vocabulary: of the ids that it takes and gives probabilities to; None where nobody says.
        version: what its user calls it (``--model-version``), or empty.
        codec: how the labels travel.
        outputs: names of the tensors that travel, sorted; None until the first pass has shown them.
    """

    model: _Text
    weights: _Name = ""
    tokenizer: _Name = ""
    vocabulary: VocabularyMark | None = None
    version: _Name = ""
    codec: CodecSpec
    outputs: Annotated[list[_Name], msgspec.Meta(max_length=1_000)] | None = None

    def differences(self, other: Fingerprint, any_version: bool = False) -> list[str]:
        """How this one differs from another, both sides named: ``codec dense:fp16 instead of dense``.

        Outputs that one side has not seen yet are no difference.

        Args:
            any_version: two named versions may be of one teacher, with the weights of each.
        """
        named = any_version and "" not in (self.version, other.version) and self.version != other.version
        return [
            f"{name} {_words(mine)} instead of {_words(its)}"
            for name in self.__struct_fields__
            if not (named and name in ("version", "weights"))
            and (mine := getattr(self, name)) != (its := getattr(other, name))
            and not (name == "outputs" and None in (mine, its))
        ]


def check_version(version: str) -> str:
    """A teacher's version, unchanged, if it is one; it may be empty.

    Raises:
        ConfigError: it is not.
    """
    if len(version) > 100 or not version.isprintable() or version != version.strip():
        raise ConfigError(f"version {version!r:.200}: use {VERSION_FORM}")
    return version


def _words(value: CodecSpec | VocabularyMark | str | list[str] | None) -> str:
    if isinstance(value, list):
        more = len(value) - _SHOWN
        return ", ".join(value[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    return str(value) if value else "(none)"
