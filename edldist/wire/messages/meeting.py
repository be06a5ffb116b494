"""Messages of a run's student nodes, which meet at the coordinator."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edldist.wire.messages.fields import MAX_FIELDS, MAX_NAME, Count, MessagePart, Name, Names, Text

__all__ = ["Generation", "GroupNode", "NodeReport", "RunView"]

_Key = Annotated[str, msgspec.Meta(max_length=MAX_NAME, pattern="^[ -~]*$")]
_Table = Annotated[dict[_Key, bytes], msgspec.Meta(max_length=MAX_FIELDS)]
_Counts = Annotated[
    dict[_Key, Annotated[int, msgspec.Meta(ge=-(1 << 32), le=1 << 32)]], msgspec.Meta(max_length=MAX_FIELDS)
]


class GroupNode(MessagePart, frozen=True, array_like=True):
    """A student node: its agent's process, its ``ranks``, where all would meet if it held rank 0, and the
    word that opens that ``door`` (``edldist.meeting.store_door``), which is not shown."""

    process: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern="^[ -~]*$")]
    host: _Key
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    ranks: Annotated[int, msgspec.Meta(ge=1)]
    door: Annotated[str, msgspec.Meta(max_length=64)] = ""

    def __repr__(self) -> str:
        return f"GroupNode({self.process!r}, {self.host!r}, {self.port}, ranks={self.ranks})"


class Generation(MessagePart, frozen=True):
    """One composition of a run's nodes, in the order of their ranks. ``number`` grows from one to the next;
    ``token`` tells apart two of one number, of coordinators that knew nothing of each other."""

    number: Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
    token: Name
    nodes: Annotated[list[GroupNode], msgspec.Meta(min_length=1, max_length=MAX_FIELDS)]

    def same(self, other: Generation | None) -> bool:
        return other is not None and (self.number, self.token) == (other.number, other.token)


class NodeReport(MessagePart, frozen=True, tag="node_report"):
    """All that a student node has to say, told again and again: nobody need remember what it said before.

    It wants to be in the ``run``'s next generation (``joining``), to stay in its present one (``member``), or
    to be gone, its part of the work done (``finished``) or not (``left``). ``generation`` is the last that it
    was in, ``values`` and ``counts`` what it wrote to that one's table. ``job`` is what it would run: nodes
    of another job are refused. ``seq`` grows with each change. ``live``: it is a rank that goes on in process
    when its group changes; then its node's supervisor says that it has ``left``, if it dies.
    """

    run: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    job: Text
    node: GroupNode
    least: Annotated[int, msgspec.Meta(ge=1)]
    most: Annotated[int, msgspec.Meta(ge=1)]
    state: Literal["joining", "member", "finished", "left"]
    seq: Count
    live: bool = False
    generation: Generation | None = None
    values: _Table = {}
    counts: _Counts = {}


class RunView(MessagePart, frozen=True, tag="run_view"):
    """Answer to a node's report ``seq``, and again whenever something of it changes.

    ``generation`` is the run's newest, ``gone`` those of its nodes that left it or fell silent; it is not
    ``whole`` while some may live and have not reported to this coordinator. ``waiting`` want to be in a next.
    ``values`` and ``counts`` (sums) are its table. A run that is ``closed`` forms no other; ``refused`` says
    why this node has no part in it.
    """

    run: Name
    seq: Count
    generation: Generation | None = None
    gone: Names = []
    whole: bool = True
    waiting: Count = 0
    closed: bool = False
    refused: Text = ""
    values: _Table = {}
    counts: _Counts = {}
