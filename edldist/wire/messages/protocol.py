"""What tells messages of one revision of edldist from those of another: the preface of each.

A preface is two bytes that say which protocol of edldist it is, one with a number that people raise, and four
of a digest of all fields of all messages. So a field that is added, removed, renamed, moved, or given another
type or bound makes another protocol by itself: a process of another revision hears so at its first message,
instead of waiting for an answer to one that was dropped because a field in it is unknown.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from edldist.errors import ProtocolVersionError, WireError

__all__ = ["PROTOCOL_VERSION", "Protocol"]

PROTOCOL_VERSION = 2
"""To be raised when what travels comes to mean something else though no field changes, as a codec's bytes."""

_DIGEST_BYTES = 4


class Protocol:
    """Messages of these types, and the preface that they begin with.

    Attributes:
        preface: the first bytes of each message.
        name: of the protocol, for people: the number and the digest.
    """

    def __init__(self, magic: bytes, messages: Any, number: int = PROTOCOL_VERSION) -> None:
        """
        Args:
            magic: two bytes, of this protocol alone.
            messages: a union of the structs that travel.
        """
        schema = _canonical(msgspec.inspect.type_info(messages))
        digest = hashlib.sha256(repr(schema).encode()).digest()[:_DIGEST_BYTES]
        self._magic = magic
        self._number = number
        self.preface = magic + bytes([number]) + digest
        self.name = f"{number}-{digest.hex()}"

    def body(self, header: memoryview) -> memoryview:
        """What follows the preface.

        Raises:
            ProtocolVersionError: it is a message of another revision of edldist.
            WireError: it is none of edldist.
        """
        size = len(self.preface)
        if header[:size] == self.preface:
            return header[size:]
        begins = len(self._magic) + 1
        if header[: begins - 1] != self._magic or len(header) < begins:
            raise WireError(f"not an edldist header: {bytes(header[:16])!r} ({len(header)} bytes)")
        number, digest = header[begins - 1], bytes(header[begins:size])
        if number != self._number:  # what follows may be anything
            raise ProtocolVersionError(str(number), self.name)
        if len(header) < size:
            raise WireError(f"a header of {len(header)} bytes; it begins with {size}")
        raise ProtocolVersionError(f"{number}-{digest.hex()}", self.name)


def _canonical(info: Any) -> Any:
    """A type as what matters of it on the wire: names and types of fields, tags and bounds.

    Classes may have other names and fields other defaults: neither travels. What msgspec has no value for is
    left out, so that a release of it that knows one more kind of bound changes nothing.
    """
    if isinstance(info, msgspec.inspect.Field):
        return info.encode_name, _canonical(info.type)
    if isinstance(info, msgspec.inspect.UnionType):
        return "union", sorted(map(repr, map(_canonical, info.types)))
    if isinstance(info, msgspec.inspect.LiteralType):
        return "literal", sorted(map(repr, info.values))
    if isinstance(info, msgspec.inspect.Type):
        kept = {name: getattr(info, name) for name in info.__struct_fields__ if name not in _LOCAL}
        parts = [(name, _canonical(value)) for name, value in kept.items() if value is not None]
        return type(info).__name__, sorted(parts)
    return [_canonical(part) for part in info] if isinstance(info, tuple | list) else info


_LOCAL = frozenset({"cls", "forbid_unknown_fields", "extra_json_schema", "extra"})
