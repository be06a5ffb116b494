"""What messages are made of: bounded names, texts, numbers and lists. Limits that no message may exceed."""

from __future__ import annotations

from typing import Annotated

import msgspec

__all__ = [
    "Count",
    "Facts",
    "Finite",
    "Hunger",
    "Leases",
    "MAGIC",
    "MAX_DIMENSIONS",
    "MAX_FIELDS",
    "MAX_FRAMES",
    "MAX_HEADER_BYTES",
    "MAX_NAME",
    "MAX_STATUS_BYTES",
    "MAX_TEXT",
    "MOST_LEASES",
    "MOST_NAMES",
    "MessagePart",
    "Metrics",
    "Name",
    "Names",
    "Peer",
    "PerSecond",
    "ProcessName",
    "Scalar",
    "Seconds",
    "Share",
    "TensorSpec",
    "Tensors",
    "Text",
    "Wall",
]

MAGIC = b"ED"

MAX_HEADER_BYTES = 1 << 20
"""Largest header that is decoded: what is in it takes up to ten times as much memory."""
MAX_STATUS_BYTES = 64 << 20
"""The same for whoever asks a coordinator for the state of a job, which may have thousands of members."""
MAX_FRAMES = 8192
"""Most frames of one message; a task has one for each of its tensors."""
MAX_NAME = 256
MAX_TEXT = 65_536
MAX_FIELDS = 1024
"""Most entries of a dictionary: figures, facts about a member, fields of an event."""
MAX_DIMENSIONS = 16
MOST_NAMES = 16_384
MOST_LEASES = 65_536
Scalar = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] | int | float | bool | None
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
ProcessName = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Names = Annotated[list[Name], msgspec.Meta(max_length=MOST_NAMES)]
Leases = Annotated[list[Count], msgspec.Meta(max_length=MOST_LEASES)]
Wall = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
PerSecond = Annotated[float, msgspec.Meta(gt=0, le=1e12)]
Hunger = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Metrics = Annotated[dict[Name, Scalar], msgspec.Meta(max_length=MAX_FIELDS)]
# What is added up, compared and rounded somewhere is finite; a loss may be anything.
Finite = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
Facts = Annotated[
    dict[Name, Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] | int | Finite | bool | None],
    msgspec.Meta(max_length=MAX_FIELDS),
]


class MessagePart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the parts of a message."""


class TensorSpec(MessagePart, frozen=True, array_like=True):
    """One tensor frame: its name, dtype (a name of ``edldist.wire.tensors.DTYPES``, or for inputs
    of ``edldist.wire.texts.KINDS``) and shape."""

    name: Name
    dtype: Name
    shape: Annotated[list[Count], msgspec.Meta(max_length=MAX_DIMENSIONS)]


Tensors = Annotated[list[TensorSpec], msgspec.Meta(max_length=MAX_FRAMES)]


class Peer(MessagePart, frozen=True, array_like=True):
    """A member that another one may connect to."""

    id: Name
    address: Name
