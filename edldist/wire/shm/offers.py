"""What two transports say to each other about shared memory. It never reaches a service.

A message that begins with ``SHARING_MAGIC`` is one of these: the preface of a protocol of their own, then
MessagePack of a tagged struct. After ``References`` the message follows that they belong to: its header, and
the frames that are not shared. This module imports neither torch nor numpy, as coordinators may receive such
messages too.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from edldist.errors import WireError
from edldist.wire.messages import MAX_FRAMES, MAX_HEADER_BYTES, Protocol
from edldist.wire.shm.memfile import FileAddress
from edldist.wire.transport import Buffer

__all__ = [
    "SHARED_FROM_BYTES",
    "SHARING_MAGIC",
    "Answer",
    "Decline",
    "Offer",
    "Reference",
    "References",
    "SharingMessage",
    "Unpaired",
    "decode_sharing",
    "encode_sharing",
]

SHARING_MAGIC = b"EM"
SHARED_FROM_BYTES = 64 << 10
"""Smaller frames go by socket, which carries them as fast."""

_Digest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Whole = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class _Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of these messages."""


class Offer(_Struct, frozen=True, tag="offer"):
    """My page is here: map it, and answer with your own."""

    address: FileAddress


class Answer(_Struct, frozen=True, tag="answer"):
    """My page is here, and ``proof`` shows that I have read yours."""

    address: FileAddress
    proof: _Digest


class Decline(_Struct, frozen=True, tag="decline"):
    """Your memory cannot be mapped here: send everything by socket."""

    reason: Annotated[str, msgspec.Meta(max_length=4096)]


class Unpaired(_Struct, frozen=True, tag="unpaired"):
    """You sent references to a process that has not paired with you."""


class Reference(_Struct, frozen=True, array_like=True):
    """Frame number ``frame`` of the message is ``length`` bytes of a file from ``start``.

    ``generation`` numbers the use of a slab; 0 marks lent memory.
    """

    frame: _Whole
    address: FileAddress
    generation: _Whole
    start: _Whole
    length: _Whole


class References(_Struct, frozen=True, tag="references"):
    """The message that follows has these frames in shared memory."""

    proof: _Digest
    references: Annotated[list[Reference], msgspec.Meta(max_length=MAX_FRAMES)]


SharingMessage = Offer | Answer | Decline | Unpaired | References
_protocol = Protocol(SHARING_MAGIC, SharingMessage)
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(SharingMessage)


def encode_sharing(message: SharingMessage) -> bytes:
    """The first frame of a message about shared memory."""
    return _protocol.preface + _encoder.encode(message)


def decode_sharing(frame: Buffer) -> SharingMessage:
    """The message of a frame that begins with the magic.

    Raises:
        ProtocolVersionError: it is of another revision of edldist.
        WireError: it is malformed.
    """
    view = memoryview(frame)
    if view.nbytes > MAX_HEADER_BYTES:
        raise WireError(f"{view.nbytes} bytes about shared memory; {MAX_HEADER_BYTES} are allowed")
    body = _protocol.body(view)
    try:
        message: SharingMessage = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise WireError(f"malformed message about shared memory: {exc}") from exc
    return message
