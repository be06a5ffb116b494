"""Typed headers: every message that edldist sends, and nothing else, encoded by msgspec.

A header frame is ``b"ED"``, one version byte, then MessagePack of one of the tagged structs
below. Tensors follow as raw frames (see ``edldist.wire.tensors``). This module imports no torch,
so that the coordinator, the launcher and ``status`` stay light.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from edldist.errors import ProtocolVersionError, WireError
from edldist.labels.fingerprint import Fingerprint

__all__ = [
    "MAGIC",
    "MAX_DIMENSIONS",
    "MAX_FIELDS",
    "MAX_FRAMES",
    "MAX_HEADER_BYTES",
    "MAX_NAME",
    "MAX_STATUS_BYTES",
    "MAX_TEXT",
    "PROTOCOL_VERSION",
    "Ack",
    "Event",
    "Failure",
    "Generation",
    "Goodbye",
    "GroupNode",
    "Heartbeat",
    "Hello",
    "Idle",
    "Labels",
    "Lease",
    "LeaseGroup",
    "LeaseRows",
    "Links",
    "MemberStatus",
    "Message",
    "NodeQuery",
    "NodeReport",
    "NodeStatus",
    "Peer",
    "Ping",
    "Pong",
    "Pull",
    "RankStatus",
    "Refused",
    "Register",
    "Registered",
    "Regroup",
    "Report",
    "Result",
    "Return",
    "RunView",
    "Scalar",
    "Status",
    "StatusQuery",
    "Tasks",
    "TensorSpec",
    "Unknown",
    "Wake",
    "Welcome",
    "decode",
    "encode",
]

MAGIC = b"ED"
PROTOCOL_VERSION = 1

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
_MOST_NAMES = 16_384
_MOST_LEASES = 65_536
Scalar = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] | int | float | bool | None
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
ProcessName = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Names = Annotated[list[Name], msgspec.Meta(max_length=_MOST_NAMES)]
Leases = Annotated[list[Count], msgspec.Meta(max_length=_MOST_LEASES)]
Wall = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Metrics = Annotated[dict[Name, Scalar], msgspec.Meta(max_length=MAX_FIELDS)]
# What is added up, compared and rounded somewhere is finite; a loss may be anything.
_Finite = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]
Facts = Annotated[
    dict[Name, Annotated[str, msgspec.Meta(max_length=MAX_TEXT)] | int | _Finite | bool | None],
    msgspec.Meta(max_length=MAX_FIELDS),
]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the parts of a message."""


class TensorSpec(_Struct, frozen=True, array_like=True):
    """One tensor frame: its name, dtype (a name of ``edldist.wire.tensors.DTYPES``) and shape."""

    name: Name
    dtype: Name
    shape: Annotated[list[Count], msgspec.Meta(max_length=MAX_DIMENSIONS)]


Tensors = Annotated[list[TensorSpec], msgspec.Meta(max_length=MAX_FRAMES)]


class Peer(_Struct, frozen=True, array_like=True):
    """A member that another one may connect to."""

    id: Name
    address: Name


# --- control: member <-> coordinator ---------------------------------------------------------


class Register(_Struct, frozen=True, tag="register"):
    """A member introduces itself; the same message again after a coordinator's restart.

    ``group`` is the teacher's name for a teacher worker; for a student, the process group that its
    rank trains in (empty if it trains alone). ``teachers`` are the names that a student
    wants; ``links`` are the students that a teacher worker serves now (a fresh coordinator learns
    the standing assignment from them). A teacher worker has a ``fingerprint``. ``process`` tells this
    very process from every other (``edldist.wire.process``); ``host``, ``pid`` and ``info`` are only shown.
    """

    id: Name
    role: Literal["teacher", "student"]
    process: ProcessName
    group: Name = ""
    address: Name = ""
    teachers: Annotated[list[Name], msgspec.Meta(max_length=64)] = []
    links: Names = []
    host: Name = ""
    pid: Count = 0
    wall_s: Wall = 0.0
    fingerprint: Fingerprint | None = None
    info: Facts = {}


class Registered(_Struct, frozen=True, tag="registered"):
    """The coordinator knows the member from now on. ``incarnation`` changes when it restarts.

    ``wall_s`` is the coordinator's wall clock, ``asked_wall_s`` that of the registration it answers:
    one that waited for a coordinator to start is old, and only the member can tell how old.
    """

    incarnation: Name
    heartbeat_interval_s: Seconds
    heartbeat_ttl_s: Seconds
    wall_s: Wall = 0.0
    asked_wall_s: Wall = 0.0


class Heartbeat(_Struct, frozen=True, tag="heartbeat"):
    """A member lives; ``stats`` are its latest figures."""

    id: Name
    stats: Facts = {}


class Unknown(_Struct, frozen=True, tag="unknown"):
    """The coordinator does not know the sender: register (again)."""


class Refused(_Struct, frozen=True, tag="refused"):
    """The receiver of a registration or greeting refuses it, for ever.

    ``incompatible``: because of what the sender is (its model, weights, version, codec, outputs). It would be
    refused again however often it is started.
    """

    reason: Text
    incompatible: bool = False


class Goodbye(_Struct, frozen=True, tag="goodbye"):
    """A member leaves on purpose: to the coordinator, or from a teacher worker to a student."""

    id: Name
    reason: Text = ""


class Links(_Struct, frozen=True, tag="links"):
    """The students that a teacher worker is to serve.

    With ``complete`` false the list only adds: a coordinator that has just started does not yet
    know everyone and orders no disconnects. With ``complete``, students that are ``released`` are
    served by others from now on. One that is in neither list is unknown to the coordinator, which
    may be cut off from it: a worker that hears it goes on serving it.
    """

    students: Annotated[list[Peer], msgspec.Meta(max_length=_MOST_NAMES)]
    complete: bool
    released: Names = []


class Regroup(_Struct, frozen=True, tag="regroup"):
    """To the ranks of a process group that lost one of theirs: a new group has to form.

    Collectives notice a killed rank by themselves, but wait for a frozen or unreachable one.

    Attributes:
        generation: the group that lost a rank, as its ranks named it when they registered.
        lost: id of the member that was lost.
    """

    generation: Name
    lost: Name
    reason: Text


_Key = Annotated[str, msgspec.Meta(max_length=MAX_NAME, pattern="^[ -~]*$")]
_Table = Annotated[dict[_Key, bytes], msgspec.Meta(max_length=MAX_FIELDS)]
_Counts = Annotated[
    dict[_Key, Annotated[int, msgspec.Meta(ge=-(1 << 32), le=1 << 32)]], msgspec.Meta(max_length=MAX_FIELDS)
]


class GroupNode(_Struct, frozen=True, array_like=True):
    """A student node: its agent's process, its ``ranks``, and where all would meet if it held rank 0."""

    process: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern="^[ -~]*$")]
    host: _Key
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    ranks: Annotated[int, msgspec.Meta(ge=1)]


class Generation(_Struct, frozen=True):
    """One composition of a run's nodes, in the order of their ranks. ``number`` grows from one to the next;
    ``token`` tells apart two of one number, of coordinators that knew nothing of each other."""

    number: Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
    token: Name
    nodes: Annotated[list[GroupNode], msgspec.Meta(min_length=1, max_length=MAX_FIELDS)]

    def same(self, other: Generation | None) -> bool:
        return other is not None and (self.number, self.token) == (other.number, other.token)


class NodeReport(_Struct, frozen=True, tag="node_report"):
    """All that a student node has to say, told again and again: nobody need remember what it said before.

    It wants to be in the ``run``'s next generation (``joining``), to stay in its present one (``member``), or
    to be gone, its part of the work done (``finished``) or not (``left``). ``generation`` is the last that it
    was in, ``values`` and ``counts`` what it wrote to that one's table. ``job`` is what it would run: nodes
    of another job are refused. ``seq`` grows with each change.
    """

    run: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
    job: Text
    node: GroupNode
    least: Annotated[int, msgspec.Meta(ge=1)]
    most: Annotated[int, msgspec.Meta(ge=1)]
    state: Literal["joining", "member", "finished", "left"]
    seq: Count
    generation: Generation | None = None
    values: _Table = {}
    counts: _Counts = {}


class RunView(_Struct, frozen=True, tag="run_view"):
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


class Event(_Struct, frozen=True, tag="event"):
    """Something worth a line in ``events.jsonl``. ``t`` is unix seconds at the member.

    One with a ``sender`` is numbered among that process's reports, and sent until acknowledged like them.
    """

    event: Name
    t: Wall
    fields: Facts = {}
    sender: Name = ""
    seq: Count = 0


class Report(_Struct, frozen=True, tag="report"):
    """Figures of the training script (``edldist.report``). Sent until acknowledged.

    ``sender`` is one process; ``seq`` counts its reports from 1.
    """

    sender: Name
    seq: Count
    rank: Count
    t: Wall
    values: Metrics


class Ack(_Struct, frozen=True, tag="ack"):
    """All reports and numbered events of the receiver up to ``seq`` are held by the coordinator."""

    seq: Count


class StatusQuery(_Struct, frozen=True, tag="status_query"):
    """Ask for the state of the job, and the events and reports numbered after ``since``."""

    since: Count = 0


class MemberStatus(_Struct, frozen=True):
    """One registered member, as ``status`` shows it."""

    id: str
    role: str
    group: str
    address: str
    process: str
    host: str
    pid: int
    joined_s: float
    silent_s: float
    links: list[str]
    info: dict[str, Scalar]
    stats: dict[str, Scalar]


class Status(_Struct, frozen=True, tag="status"):
    """The state of the job.

    ``records`` holds ``Event`` and ``Report`` values in the order of their arrival; ``seq`` is the
    number of the last one (ask for what follows with ``StatusQuery(since=seq)``). Numbers start
    again with a new ``incarnation``.
    """

    incarnation: Name
    uptime_s: float
    members: list[MemberStatus]
    records: list[Event | Report]
    seq: Count


class NodeQuery(_Struct, frozen=True, tag="node_query"):
    """A student node asks about its own ranks, often, so the answer must not grow with the job.

    Attributes:
        processes: of the node's ranks.
        since: number of the last record that was looked at; see ``Status``.
    """

    processes: Annotated[list[ProcessName], msgspec.Meta(max_length=1_024)]
    since: Count = 0


class RankStatus(_Struct, frozen=True):
    """A student member: its process, and its latest figures."""

    process: ProcessName
    stats: Facts


class NodeStatus(_Struct, frozen=True, tag="node_status"):
    """What a node asked for.

    Attributes:
        incarnation: of the coordinator.
        ranks: members of the processes that were named, as far as they are here.
        lost: which of these processes lost a member in the records after ``since``.
        seq: number of the last record; ask again with it.
    """

    incarnation: Name
    ranks: list[RankStatus]
    lost: list[ProcessName]
    seq: Count


# --- data: teacher worker <-> student ----------------------------------------------------------


class Hello(_Struct, frozen=True, tag="hello"):
    """A teacher worker greets a student that it connected to.

    ``process`` names this very process: a worker that greets again is alive, one that was started
    anew under the same name is not the one before.
    """

    worker: Name
    teacher: Name
    fingerprint: Fingerprint
    process: ProcessName


class Welcome(_Struct, frozen=True, tag="welcome"):
    """The student takes the worker. It will ping it every ``ping_interval_s``."""

    student: Name
    ping_interval_s: Seconds
    heartbeat_ttl_s: Seconds
    max_frame_bytes: Count


class Pull(_Struct, frozen=True, tag="pull"):
    """The worker has room for tasks that cost so much together.

    A sample costs 1, one with a length costs its length. ``seq`` grows from pull to pull of this worker.
    """

    seq: Count
    room: Annotated[int, msgspec.Meta(ge=1)]


class Lease(_Struct, frozen=True, array_like=True):
    """A task that is handed to a worker. ``alone`` asks for a forward pass without other tasks.

    ``cost`` is what it takes of the room of a pull, and its rows in the tensors of its group: as many as it
    has ``samples``, unless these have lengths.
    """

    id: Count
    samples: Count
    cost: Count
    alone: bool


class LeaseGroup(_Struct, frozen=True, array_like=True):
    """Leases whose samples lie back to back, in this order, in each of the next ``len(tensors)`` frames.

    Small tasks travel together; a large one is a group of its own.
    """

    leases: Annotated[list[Lease], msgspec.Meta(min_length=1, max_length=_MOST_LEASES)]
    tensors: Tensors


class Tasks(_Struct, frozen=True, tag="tasks"):
    """Answer to a pull. ``buffered`` is the number of batches that the student's loop could take now."""

    seq: Count
    groups: Annotated[list[LeaseGroup], msgspec.Meta(max_length=MAX_FRAMES)]
    buffered: Count


class Idle(_Struct, frozen=True, tag="idle"):
    """Answer to a pull: nothing to give now; a ``Wake`` follows when there is.

    ``quarantine`` says why this very worker gets nothing although there is work.
    """

    seq: Count
    buffered: Count
    quarantine: Text = ""


class Wake(_Struct, frozen=True, tag="wake"):
    """The student has tasks again for a worker that it answered ``Idle``."""

    buffered: Count


class LeaseRows(_Struct, frozen=True, array_like=True):
    """So many rows of a result answer this lease."""

    lease: Count
    count: Count


class Result(_Struct, frozen=True, array_like=True):
    """Labels of one forward pass: the next ``len(tensors)`` frames, in which the rows lie back to back.

    ``version`` is the teacher's, as in its greeting: what tells these labels from an earlier model's.
    """

    rows: Annotated[list[LeaseRows], msgspec.Meta(min_length=1, max_length=_MOST_LEASES)]
    version: Name
    compute_s: Annotated[float, msgspec.Meta(ge=0, le=1e12)]
    tensors: Tensors


class Labels(_Struct, frozen=True, tag="labels"):
    """The results of one forward pass for one student, and the pull for more if it is due."""

    results: Annotated[list[Result], msgspec.Meta(max_length=MAX_FRAMES)]
    pull: Pull | None = None


class Failure(_Struct, frozen=True, tag="failure"):
    """The model raised on these leases; ``error`` is its traceback."""

    leases: Leases
    error: Text


class Return(_Struct, frozen=True, tag="return"):
    """The worker gives back leases without blame: it drains, or has spoilt their inputs."""

    leases: Leases


class Ping(_Struct, frozen=True, tag="ping"):
    """The student probes the link: shows a dead peer at once and proves that the student lives."""

    seq: Count
    buffered: Count


class Pong(_Struct, frozen=True, tag="pong"):
    """Answer to the ping ``seq``: the worker's communication thread lives, and this is its view.

    A connection that broke and came back may have lost messages in either direction without
    either process noticing. Messages keep their order, so whatever the student sent before the
    ping and is not in this view never arrived, or its answer never will.

    ``held`` are the leases that the worker holds of this student, ``pulled`` the number of its
    open pull (0: none), ``asleep`` whether it waits for a ``Wake``.
    """

    seq: Count
    held: Leases
    pulled: Count
    asleep: bool


Message = (
    Register
    | Registered
    | Heartbeat
    | Unknown
    | Refused
    | Goodbye
    | Links
    | Regroup
    | NodeReport
    | RunView
    | Event
    | Report
    | Ack
    | StatusQuery
    | NodeQuery
    | NodeStatus
    | Status
    | Hello
    | Welcome
    | Pull
    | Tasks
    | Idle
    | Wake
    | Labels
    | Failure
    | Return
    | Ping
    | Pong
)

_LONG_WITHOUT_TEXTS = (Status, Links, RunView, Tasks, Labels, Pong)
_PREFIX = MAGIC + bytes([PROTOCOL_VERSION])
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
    most = MAX_STATUS_BYTES if isinstance(message, Status) else MAX_HEADER_BYTES
    if len(_PREFIX) + len(body) > most:
        raise WireError(
            f"a {type(message).__name__} of {len(body)} bytes; {most} can be sent. Send less at once"
        )
    return _PREFIX + body


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
        ProtocolVersionError: the frame is edldist's, of another version.
        WireError: the frame is anything else than a valid header.
    """
    view = memoryview(header)
    if view.nbytes > max_bytes:
        raise WireError(f"a header of {view.nbytes} bytes; {max_bytes} are allowed")
    if view[:2] != MAGIC or len(view) < 3:
        raise WireError(f"not an edldist header: {bytes(view[:16])!r} ({len(view)} bytes)")
    if view[2] != PROTOCOL_VERSION:
        raise ProtocolVersionError(view[2], PROTOCOL_VERSION)
    try:
        message: Message = _decoder.decode(view[3:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise WireError(f"malformed header of {len(view)} bytes: {exc}") from exc
    return message
