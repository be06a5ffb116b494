"""Headers that no honest process sends: valid messages with something changed, and bytes of any kind.

Types are read off the messages themselves, so that a new one is fuzzed from its first day.
"""

from __future__ import annotations

import functools
import random
import re
import struct
from collections.abc import Callable
from typing import Any, get_args

import msgspec
from msgspec import inspect

from edldist.wire.messages import MAX_TEXT, PROTOCOL, Message, encode
from edldist.wire.shm.offers import SHARING_MAGIC, SharingMessage, encode_sharing

KINDS: tuple[type[msgspec.Struct], ...] = get_args(Message)
SHARING_KINDS: tuple[type[msgspec.Struct], ...] = get_args(SharingMessage)
LENGTHS = [struct.pack(">BI", kind, 0xFFFFFFFF) for kind in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF)]
"""MessagePack that announces four gigabytes, or four thousand million entries."""
NUMBERS = [0, -1, 1, 2**31, 2**63 - 1, 2**64 - 1, -(2**63), 1e308, -0.0, float("inf"), float("nan"), 1e-320]
TEXTS = [
    "",
    "x",
    "t-1",
    "\x00",
    "\u202e",
    "a" * 300,
    "../../etc/passwd",
    "tcp://127.0.0.1:1",
    "tcp://[::1",
    "💥",
]
LONG = [letter * MAX_TEXT for letter in ("a", "[", "/", "\x1b")]
"""The longest that are taken: whoever looks at one must not take the square of its length."""

_KEPT = 500
_ANEW = 0.02
_LONG = 0.005
_type_of = functools.cache(inspect.type_info)


class Words:
    """Draws headers from one source of chance."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._some: list[tuple[bytes, Any]] = []  # valid messages, to be changed: drawing one takes long

    def header(self) -> bytes:
        """Any bytes that may stand where a header is expected."""
        draw = self.rng.random()
        if draw < 0.1:
            return self.rng.randbytes(self.rng.randint(0, 300))
        if draw < 0.2:
            return PROTOCOL.preface + self.rng.randbytes(self.rng.randint(0, 120))
        if draw < 0.25:
            return PROTOCOL.preface + self._nested()
        if draw < 0.3:
            return self._sharing()
        if draw < 0.45:
            return PROTOCOL.preface + msgspec.msgpack.encode(self._bent(self._valid()[1]))
        valid = self._valid()[0]
        return valid if draw < 0.5 else self.bent(valid)

    def _valid(self) -> tuple[bytes, Any]:
        """A valid message as it travels, and as dictionaries and lists."""
        if len(self._some) < _KEPT or self.rng.random() < _ANEW:
            message = self.message()
            made = (encode(message), msgspec.to_builtins(message))
            if len(self._some) < _KEPT:
                self._some.append(made)
            else:
                self._some[self.rng.randrange(_KEPT)] = made
            return made
        return self.rng.choice(self._some)

    def message(self, kinds: tuple[type[msgspec.Struct], ...] = KINDS) -> Any:
        """A valid message of any kind with any values."""
        return self._value(_type_of(self.rng.choice(kinds)), 0)

    def bent(self, valid: bytes) -> bytes:
        """Some bytes with a few changes."""
        raw = bytearray(valid)
        for _ in range(self.rng.choice((1, 1, 1, 2, 5, 20))):
            at = self.rng.randint(0, len(raw))
            change: Callable[[bytearray, int], None] = self.rng.choice(
                (self._flip, self._cut, self._double, self._insert, self._announce)
            )
            change(raw, at)
        return bytes(raw)

    # --- bytes --------------------------------------------------------------------------------------

    def _flip(self, raw: bytearray, at: int) -> None:
        if at < len(raw):
            raw[at] ^= 1 << self.rng.randrange(8)

    def _cut(self, raw: bytearray, at: int) -> None:
        del raw[at : at + self.rng.randint(1, 40)]

    def _double(self, raw: bytearray, at: int) -> None:
        raw[at:at] = raw[at : at + self.rng.randint(1, 40)]

    def _insert(self, raw: bytearray, at: int) -> None:
        raw[at:at] = self.rng.randbytes(self.rng.randint(1, 8))

    def _announce(self, raw: bytearray, at: int) -> None:
        raw[at : at + 5] = self.rng.choice(LENGTHS)

    def _nested(self) -> bytes:
        return self.rng.choice((b"\x91", b"\x81\xa1x", b"\x82\xa4type")) * self.rng.randint(100, 5_000)

    def _sharing(self) -> bytes:
        if self.rng.random() < 0.2:
            return SHARING_MAGIC + self.rng.randbytes(self.rng.randint(0, 80))
        return self.bent(encode_sharing(self.message(SHARING_KINDS)))

    # --- values -------------------------------------------------------------------------------------

    def _bent(self, plain: Any) -> Any:
        """A message in which something has another type, is missing or too much."""
        if not isinstance(plain, dict):
            return plain
        plain = dict(plain)
        for _ in range(self.rng.randint(1, 3)):
            key = self.rng.choice([*plain, "more"])
            if self.rng.random() < 0.3:
                plain.pop(key, None)
            else:
                plain[key] = self._anything(0)
        return plain

    def _anything(self, depth: int) -> Any:
        draw = self.rng.randrange(8 if depth < 3 else 5)
        if draw == 0:
            return None
        if draw <= 2:
            return self.rng.choice(NUMBERS)
        if draw <= 4:
            return self._some_text()
        if draw == 5:
            return self.rng.randbytes(self.rng.randint(0, 40))
        items = [self._anything(depth + 1) for _ in range(self.rng.randint(0, 4))]
        return items if draw == 6 else {self.rng.choice(TEXTS): item for item in items}

    def _value(self, kind: inspect.Type, depth: int) -> Any:
        rng = self.rng
        if isinstance(kind, inspect.StructType):
            return kind.cls(**{each.name: self._value(each.type, depth + 1) for each in kind.fields})
        if isinstance(kind, inspect.UnionType):
            return self._value(rng.choice(kind.types), depth)
        if isinstance(kind, inspect.StrType):
            return self._text(kind)
        if isinstance(kind, inspect.IntType):
            low = kind.ge if kind.ge is not None else -(2**40)
            high = kind.le if kind.le is not None else (kind.lt - 1 if kind.lt is not None else 2**40)
            return rng.choice((low, rng.randint(low, max(low, high)), min(high, low + rng.randint(0, 9))))
        if isinstance(kind, inspect.FloatType):
            low = kind.ge if kind.ge is not None else (kind.gt if kind.gt is not None else -1e9)
            high = kind.le if kind.le is not None else 1e9
            return rng.uniform(low, high) or high
        if isinstance(kind, inspect.BoolType):
            return rng.random() < 0.5
        if isinstance(kind, inspect.BytesType):
            return rng.randbytes(max(kind.min_length or 0, min(kind.max_length or 40, 32)))
        if isinstance(kind, inspect.LiteralType):
            return rng.choice(list(kind.values))
        if isinstance(kind, inspect.DictType):
            count = rng.randint(0, 3) if depth < 6 else 0
            pairs = [
                (self._value(kind.key_type, depth), self._value(kind.value_type, depth)) for _ in range(count)
            ]
            return dict(pairs)
        if isinstance(kind, inspect.ListType | inspect.VarTupleType):
            least = kind.min_length or 0
            count = max(least, rng.randint(0, 3) if depth < 6 else 0)
            items = [self._value(kind.item_type, depth + 1) for _ in range(count)]
            return items if isinstance(kind, inspect.ListType) else tuple(items)
        if isinstance(kind, inspect.TupleType):
            return tuple(self._value(each, depth + 1) for each in kind.item_types)
        if isinstance(kind, inspect.NoneType):
            return None
        raise NotImplementedError(f"no values are drawn of {type(kind).__name__} yet: say how, here")

    def _some_text(self) -> str:
        return self.rng.choice(LONG if self.rng.random() < _LONG else TEXTS)

    def _text(self, kind: inspect.StrType) -> str:
        text = self._some_text()[: kind.max_length]
        if kind.pattern is not None and not re.search(kind.pattern, text):
            text = "x"
        return text if len(text) >= (kind.min_length or 0) else "x" * (kind.min_length or 0)
