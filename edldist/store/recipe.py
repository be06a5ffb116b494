"""All that made a teacher's labels but the sample: labels of one recipe may stand for each other."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import msgspec

from edldist.errors import StoreError
from edldist.labels.fingerprint import Fingerprint

__all__ = ["DIGEST_DIGITS", "Recipe"]

DIGEST_DIGITS = 64

_Text = Annotated[str, msgspec.Meta(max_length=1_000)]
_WORDS = ("settings", "preprocessing", "data")


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What labels are kept under, beside the digest of each sample.

    Attributes:
        fingerprint: of the workers that make them: model, weights, tokenizer, vocabulary, version, and the
            codec with its parameters. Names of outputs play no part: they follow from the rest.
        settings: what the job says beside that of how its model labels: arguments of the factory, outputs
            that are sent, autocast (``TeacherConfig.label_settings``); empty where it says nothing.
        preprocessing: what the user says was done to the inputs, in any words; another text, other labels.
        data: which data set the ids of samples belong to; empty where the inputs themselves are digested.
    """

    fingerprint: Fingerprint
    settings: _Text = ""
    preprocessing: _Text = ""
    data: _Text = ""

    @property
    def digest(self) -> str:
        """64 hexadecimal digits; fields that say nothing are left out, so that new ones change no digest."""
        said = {name: getattr(self, name) for name in _WORDS} | {"fingerprint": _said(self._made_by)}
        return hashlib.blake2b(msgspec.json.encode(_said(said), order="sorted"), digest_size=32).hexdigest()

    @property
    def _made_by(self) -> Fingerprint:
        return msgspec.structs.replace(self.fingerprint, outputs=None)

    def check(self) -> Recipe:
        """The same, if its labels can be told from those of another teacher.

        Raises:
            StoreError: nobody can tell.
        """
        made_by = self.fingerprint
        if not (made_by.weights or made_by.version):
            raise StoreError(
                f"labels of {made_by.model} cannot be kept: it is no nn.Module, so nobody can tell which "
                "weights it computes with, and old labels could pass for new ones. Name a version that "
                "changes whenever it does (--model-version, or version: of the teacher in the job file)"
            )
        return self

    def differences(self, other: Recipe) -> list[str]:
        """How this one differs from another, both sides named: ``codec dense:fp16 instead of dense``."""
        return self._made_by.differences(other._made_by) + [
            f"{name} {getattr(self, name)!r:.100} instead of {getattr(other, name)!r:.100}"
            for name in _WORDS
            if getattr(self, name) != getattr(other, name)
        ]

    def check_same(self, there: Recipe, where: str) -> None:
        """Make sure that the labels that lie somewhere are of this recipe.

        Raises:
            StoreError: they are of another; says how the two differ.
        """
        if there.digest != self.digest:
            raise StoreError(
                f"{where} holds labels of another teacher: {'; '.join(self.differences(there))}. Somebody "
                "moved the folder, or changed its recipe.json"
            )

    def encode(self) -> bytes:
        """As it lies in ``recipe.json``."""
        made_by = msgspec.to_builtins(msgspec.structs.replace(self, fingerprint=self._made_by))
        return msgspec.json.format(msgspec.json.encode(made_by)) + b"\n"

    @classmethod
    def decode(cls, text: bytes) -> Recipe:
        """What ``encode`` made.

        Raises:
            StoreError: it cannot be.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, msgspec.ValidationError) as exc:
            raise StoreError(f"no recipe of labels: {exc}") from exc


def _said(fields: Fingerprint | dict[str, Any]) -> dict[str, Any]:
    """The fields that say something."""
    plain = msgspec.to_builtins(fields)
    return {name: value for name, value in plain.items() if value not in ("", None)}
