"""The tokens of a vocabulary by their ids: what two sides have to agree on before ids mean the same to
both."""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from edldist.errors import ConfigError, WireError
from edldist.labels.fingerprint import MOST_TOKENS, VocabularyMark

__all__ = ["MOST_PACKED_BYTES", "Tokens"]

MOST_PACKED_BYTES = 16 << 20
"""Of a list that travels: 256,000 tokens take about 1 MB."""
_MOST_BYTES = 128 << 20
_SHOWN = 40

_List = Annotated[list[str | None], msgspec.Meta(max_length=MOST_TOKENS)]


class Tokens:
    """An id map: which token has which id. Immutable.

    Attributes:
        texts: by id; None for an id that no token has.
    """

    def __init__(self, texts: Sequence[str | None]) -> None:
        """Raises:
        ConfigError: there are none, or too many.
        """
        if not 0 < len(texts) <= MOST_TOKENS:
            raise ConfigError(
                f"a vocabulary has from 1 to {MOST_TOKENS:,} tokens, and this one {len(texts):,}"
            )
        self.texts = [None if text is None else _printable(text) for text in texts]

    @classmethod
    def of_ids(cls, ids: Mapping[Any, int]) -> Tokens:
        """Of a map from tokens, text or bytes, to ids.

        Raises:
            ConfigError: an id is none, or two tokens have one.
        """
        wrong = next((token for token, i in ids.items() if not isinstance(i, int) or i < 0), None)
        if wrong is not None or not ids:
            what = "it is empty" if not ids else f"token {wrong!r} has {ids[wrong]!r}"
            raise ConfigError(f"a vocabulary maps tokens to ids from 0: {what}")
        texts: list[str | None] = [None] * min(MOST_TOKENS + 1, 1 + max(ids.values()))
        for token, number in ids.items():
            if number < len(texts) and texts[number] is not None:
                raise ConfigError(
                    f"tokens {texts[number]!r} and {token!r} of a vocabulary both have id {number}"
                )
            if number < len(texts):
                texts[number] = as_text(token)
        return cls(texts)

    def __len__(self) -> int:
        """One more than the largest id."""
        return len(self.texts)

    @functools.cached_property
    def mark(self) -> VocabularyMark:
        """What tells it from another one."""
        digest = hashlib.blake2b(digest_size=16)
        for text in self.texts:
            content = b"" if text is None else text.encode()
            digest.update(b"-" if text is None else f"{len(content)} ".encode())
            digest.update(content)
        return VocabularyMark(len(self), digest.hexdigest())

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """By token; of one that is there twice, the first."""
        found: dict[str, int] = {}
        for number, text in enumerate(self.texts):
            if text is not None:
                found.setdefault(text, number)
        return found

    # --- on the way to the other side -----------------------------------------------------------------

    @functools.cached_property
    def packed(self) -> bytes:
        """The list, to travel in a frame."""
        return zlib.compress(msgspec.msgpack.encode(self.texts), 1)

    @classmethod
    def unpack(cls, packed: bytes | memoryview, mark: VocabularyMark) -> Tokens:
        """A list that came.

        Raises:
            WireError: it is none, or too large, or not the one of that mark.
        """
        try:
            if len(packed) > MOST_PACKED_BYTES:
                raise ValueError(f"{len(packed)} bytes")
            opened = zlib.decompressobj()
            content = opened.decompress(packed, _MOST_BYTES)
            if opened.unconsumed_tail or not opened.eof:
                raise ValueError("it does not end")
            tokens = cls(msgspec.msgpack.decode(content, type=_List))
        except (zlib.error, msgspec.MsgspecError, ValueError, ConfigError) as exc:
            raise WireError(f"a list of tokens came that is none: {exc}") from exc
        if tokens.mark != mark:
            raise WireError(f"a list of {tokens.mark} came for {mark}")
        return tokens

    # --- in words -------------------------------------------------------------------------------------

    def differences(self, other: Tokens) -> str:
        """How this vocabulary, the student's, and another one, the teacher's, differ: the first tokens that
        do.

        ``they first differ at id 3, 'the' here and 'a' there; 2 of 4 tokens ...``. Empty if they do not.
        """
        if self.mark == other.mark:
            return ""
        common = min(len(self), len(other))
        first = next((i for i in range(common) if self.texts[i] != other.texts[i]), None)
        if first is None:
            longer, side = (self, "this student") if len(self) > common else (other, "the teacher")
            more = [_shown(text) for text in longer.texts[common : common + 3]]
            return f"the first {common:,} are the same, and {side} has {', '.join(more)} ... behind them"
        pairs = [
            f"id {i} is {_shown(self.texts[i])} here and {_shown(other.texts[i])} there"
            for i in range(first, min(first + 3, common))
            if self.texts[i] != other.texts[i]
        ]
        shared = self.ids.keys() & other.ids.keys()
        alike = sum(self.ids[text] == other.ids[text] for text in shared)
        return f"{', '.join(pairs)} ...; {len(shared):,} tokens are in both, {alike:,} of them under one id"


def as_text(token: object) -> str:
    """A token as text; bytes that are none are escaped.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(token, bytes):
        return token.decode("utf-8", "backslashreplace")
    if not isinstance(token, str):
        raise ConfigError(f"a token of a vocabulary is {token!r:.80}: it must be text, or bytes")
    return token


def texts_of(tokens: Iterable[object]) -> Tokens:
    """Of a list of tokens in the order of their ids."""
    return Tokens([None if token is None else as_text(token) for token in tokens])


def _printable(text: str) -> str:
    """Text that can travel: without halves of surrogate pairs."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "backslashreplace")


def _shown(text: str | None) -> str:
    return "nothing" if text is None else f"{text[:_SHOWN]!r}"
