"""From a message to its header frame and back."""

from __future__ import annotations

from typing import Any

import msgspec

from edldist.errors import WireError
from edldist.wire.messages.control import (
    Ack,
    Event,
    Goodbye,
    Heartbeat,
    KeyRetired,
    Links,
    NodeQuery,
    NodeStatus,
    Refused,
    Register,
    Registered,
    Regroup,
    Report,
    Scale,
    Scaled,
    Status,
    StatusQuery,
    TeachersHere,
    Unknown,
    Vouch,
)
from edldist.wire.messages.fields import MAGIC, MAX_HEADER_BYTES, MAX_STATUS_BYTES, MAX_TEXT
from edldist.wire.messages.history import History, HistoryQuery
from edldist.wire.messages.labelling import (
    Failure,
    Hello,
    Idle,
    Labels,
    Ping,
    Pong,
    Pull,
    Return,
    Tasks,
    TokensTold,
    TokensWanted,
    Wake,
    Welcome,
)
from edldist.wire.messages.meeting import NodeReport, RunView
from edldist.wire.messages.protocol import Protocol
from edldist.wire.messages.sharing import Shed
from edldist.wire.messages.tracing import TraceBegun, TraceOrder, TraceQuery, TraceRecords

__all__ = ["PROTOCOL", "Message", "decode", "encode"]

Message = (
    Register
    | Registered
    | Heartbeat
    | Unknown
    | Vouch
    | Refused
    | KeyRetired
    | Goodbye
    | Links
    | Regroup
    | TeachersHere
    | Shed
    | NodeReport
    | RunView
    | Event
    | Report
    | Ack
    | StatusQuery
    | NodeQuery
    | NodeStatus
    | Scale
    | Scaled
    | Status
    | HistoryQuery
    | History
    | TraceQuery
    | TraceBegun
    | TraceOrder
    | TraceRecords
    | Hello
    | Welcome
    | Pull
    | Tasks
    | Idle
    | TokensTold
    | TokensWanted
    | Wake
    | Labels
    | Failure
    | Return
    | Ping
    | Pong
)

PROTOCOL = Protocol(MAGIC, Message)
"""That of services. Its bare preface answers messages of other ones, which understand nothing else."""

_PREFACE = PROTOCOL.preface
_ABOUT_THE_JOB = (Status, History)
_LONG_WITHOUT_TEXTS = (
    *(*_ABOUT_THE_JOB, Links, RunView, Tasks, Labels, Pong),
    *(TraceBegun, TraceRecords),
)
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """The header frame of a message.

    Texts that cannot travel are made to: longer ones than ``MAX_TEXT`` lose their middle, and surrogates (an
    error may quote a file name that is no text) are replaced.

    Raises:
        WireError: the header is larger than a receiver takes.
    """
    try:
        body = _encoder.encode(message)
    except UnicodeEncodeError:
        body = _encoder.encode(_with_sendable_texts(message))
    if len(body) > MAX_TEXT and not isinstance(message, _LONG_WITHOUT_TEXTS):
        body = _encoder.encode(_with_sendable_texts(message))
    most = MAX_STATUS_BYTES if isinstance(message, _ABOUT_THE_JOB) else MAX_HEADER_BYTES
    if len(_PREFACE) + len(body) > most:
        raise WireError(
            f"a {type(message).__name__} of {len(body)} bytes; {most} can be sent. Send less at once"
        )
    return _PREFACE + body


def _with_sendable_texts(value: Any) -> Any:
    if isinstance(value, str):
        text = value.encode(errors="replace").decode()
        half = MAX_TEXT // 2
        return text if len(text) <= MAX_TEXT else f"{text[: half - 1]}\u2026{text[-half:]}"
    if isinstance(value, msgspec.Struct):
        fields = {name: _with_sendable_texts(getattr(value, name)) for name in value.__struct_fields__}
        return type(value)(**fields)
    if isinstance(value, dict):
        return {_with_sendable_texts(key): _with_sendable_texts(item) for key, item in value.items()}
    return [_with_sendable_texts(item) for item in value] if isinstance(value, list) else value


def decode(header: bytes | bytearray | memoryview, max_bytes: int = MAX_HEADER_BYTES) -> Message:
    """The message of a header frame.

    Args:
        max_bytes: a larger one is refused before a byte of it is decoded.

    Raises:
        ProtocolVersionError: the frame is edldist's, of another revision.
        WireError: the frame is anything else than a valid header.
    """
    view = memoryview(header)
    if view.nbytes > max_bytes:
        raise WireError(f"a header of {view.nbytes} bytes; {max_bytes} are allowed")
    body = PROTOCOL.body(view)
    try:
        message: Message = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise WireError(f"malformed header of {len(view)} bytes: {exc}") from exc
    return message
