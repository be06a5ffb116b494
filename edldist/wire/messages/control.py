"""Messages between a member (teacher worker or student) and the coordinator, and questions about the job."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edldist.bounds import MOST_DEGRADATIONS
from edldist.labels.fingerprint import Fingerprint
from edldist.wire.messages.fields import (
    MOST_NAMES,
    Count,
    Facts,
    Hunger,
    MessagePart,
    Metrics,
    Name,
    Names,
    Peer,
    PerSecond,
    ProcessName,
    Scalar,
    Seconds,
    Share,
    Text,
    Wall,
)
from edldist.wire.messages.sharing import Degradation, JobShare
from edldist.wire.messages.stages import MOST_ROWS, StageRow, StageTimes

__all__ = [
    "Ack",
    "Event",
    "Goodbye",
    "GroupStatus",
    "Heartbeat",
    "KeyRetired",
    "Links",
    "MemberStatus",
    "Need",
    "NodeQuery",
    "NodeStatus",
    "RankStatus",
    "RefusedStatus",
    "Refused",
    "Register",
    "Registered",
    "Regroup",
    "Report",
    "Scale",
    "Scaled",
    "Status",
    "StatusQuery",
    "TeachersHere",
    "Unknown",
    "Vouch",
]


class Register(MessagePart, frozen=True, tag="register"):
    """A member introduces itself; the same message again after a coordinator's restart.

    ``group`` is the teacher's name for a teacher worker; for a student, the process group that its rank
    trains in (empty if it trains alone). ``teachers`` are the names that a student wants, ``rolling``
    those of which it takes several versions; ``links`` are the
    students that a teacher worker serves now (a fresh coordinator learns the standing assignment from them).
    A teacher worker has a ``fingerprint``. ``process`` tells this very process from every other
    (``edldist.wire.process``); ``host``, ``pid`` and ``info`` are only shown. ``device_type`` is what a
    teacher worker computes on: workers of one type are taken to be equally fast until they have shown
    otherwise. ``run`` and ``generation`` say of which generation of which run a student is, where somebody
    counts them, and ``job`` of which job, where several share a coordinator. ``attempt`` is how often a
    process was started under this id before, where somebody counts: a later one takes the place of an earlier
    one. ``low_watermark`` and ``high_watermark`` bound a student's buffer, in batches. ``share`` is what its
    job may have of workers that serve several; ``degrade`` are the labels that it takes instead of those of
    the first of ``teachers``, one kind at a time, where the fleet is overloaded.
    """

    id: Name
    role: Literal["teacher", "student"]
    process: ProcessName
    group: Name = ""
    address: Name = ""
    teachers: Annotated[list[Name], msgspec.Meta(max_length=64)] = []
    rolling: Annotated[list[Name], msgspec.Meta(max_length=64)] = []
    links: Names = []
    host: Name = ""
    pid: Count = 0
    wall_s: Wall = 0.0
    fingerprint: Fingerprint | None = None
    device_type: Name = ""
    run: Name = ""
    generation: Count = 0
    job: Name = ""
    attempt: Count = 0
    low_watermark: Count = 0
    high_watermark: Count = 0
    share: JobShare = JobShare()
    degrade: Annotated[list[Degradation], msgspec.Meta(max_length=MOST_DEGRADATIONS)] = []
    info: Facts = {}


class Registered(MessagePart, frozen=True, tag="registered"):
    """The coordinator knows the member from now on. ``incarnation`` changes when it restarts.

    ``wall_s`` is the coordinator's wall clock, ``asked_wall_s`` that of the registration it answers:
    one that waited for a coordinator to start is old, and only the member can tell how old.
    """

    incarnation: Name
    heartbeat_interval_s: Seconds
    heartbeat_ttl_s: Seconds
    wall_s: Wall = 0.0
    asked_wall_s: Wall = 0.0


class Need(MessagePart, frozen=True, array_like=True):
    """What a student needs of one teacher group.

    Attributes:
        group: the teacher group.
        hunger: samples per second that the student would take of it if it never waited for labels; None
            until it has taken enough to tell; 0 where it needs nothing of it, as when all labels are found in
            a store.
        lacking: samples that it has read and that this group has not labelled yet.
        buffered: labelled batches that its loop has not taken yet, as far as this group's labels go.
        oldest: version of the teacher of which it takes labels; 0: of any.
    """

    group: Name
    hunger: Hunger | None
    lacking: Count
    buffered: Count
    oldest: Count = 0


class Heartbeat(MessagePart, frozen=True, tag="heartbeat"):
    """A member lives.

    Attributes:
        stats: its latest figures, as a person reads them.
        capacity: of a teacher worker: samples per second that it labels while it never waits for tasks; None
            until it has labelled some.
        needs: of a student: one for each of its teacher groups.
        starved: of a student: share of the time in which ``hunger`` was measured that its loop waited for
            labels; None while that is.
        stages: how long what it does has taken so far.
        rows: of a teacher worker: the ways of some tasks that it has answered since its last heartbeat.
    """

    id: Name
    stats: Facts = {}
    capacity: PerSecond | None = None
    needs: Annotated[list[Need], msgspec.Meta(max_length=64)] = []
    starved: Share | None = None
    stages: Annotated[list[StageTimes], msgspec.Meta(max_length=16)] = []
    rows: Annotated[list[StageRow], msgspec.Meta(max_length=MOST_ROWS)] = []


class Vouch(MessagePart, frozen=True, tag="vouch"):
    """A process beside a teacher worker says that it lives, to the coordinator and to students.

    It does so while the worker is silent, because its model keeps the interpreter (``wire/voucher.py``).
    Whoever knows a member of that ``id`` and ``process`` counts it as a sign of life; others drop it.
    """

    id: Name
    process: ProcessName


class Unknown(MessagePart, frozen=True, tag="unknown"):
    """The coordinator does not know the sender: register (again)."""


class Refused(MessagePart, frozen=True, tag="refused"):
    """The receiver of a registration or greeting refuses it, for ever unless ``held_for_s`` says otherwise.

    ``incompatible``: because of what the sender is (its model, weights, version, codec, outputs), beside the
    others of its group. It would be refused again however often it is started. A student that refuses a
    worker for what it wants itself does not say so: the worker is of use to others. ``held_for_s``: its id is
    another process's, which loses it when it has been silent for so long.
    """

    reason: Text
    incompatible: bool = False
    held_for_s: Seconds | None = None


class KeyRetired(MessagePart, frozen=True, tag="key_retired"):
    """The receiver's transport takes nothing in from the sender: its key was retired since they connected.

    It answers each message so. The sender's transport keeps it, and connects anew with the newest keys of its
    folder.
    """


class Goodbye(MessagePart, frozen=True, tag="goodbye"):
    """A member leaves on purpose: to the coordinator, or from a teacher worker to a student."""

    id: Name
    reason: Text = ""


class Links(MessagePart, frozen=True, tag="links"):
    """The students that a teacher worker is to serve.

    With ``complete`` false the list only adds: a coordinator that has just started does not yet
    know everyone and orders no disconnects. With ``complete``, students that are ``released`` are
    served by others from now on. One that is in neither list is unknown to the coordinator, which
    may be cut off from it: a worker that hears it goes on serving it.
    """

    students: Annotated[list[Peer], msgspec.Meta(max_length=MOST_NAMES)]
    complete: bool
    released: Names = []


class Regroup(MessagePart, frozen=True, tag="regroup"):
    """To the ranks of a process group that lost one of theirs: a new group has to form.

    Collectives notice a killed rank by themselves, but wait for a frozen or unreachable one. Also to a rank
    that registers after its generation was written off, and which may be in such a collective.

    Attributes:
        generation: the group that lost a rank, as its ranks named it when they registered.
        lost: id of the member that was lost.
    """

    generation: Name
    lost: Name
    reason: Text


class TeachersHere(MessagePart, frozen=True, tag="teachers_here"):
    """To a student, in answer to a heartbeat: a teacher group that it wants is not here, these are."""

    groups: Annotated[list[Name], msgspec.Meta(max_length=64)]


class Event(MessagePart, frozen=True, tag="event"):
    """Something worth a line in ``events.jsonl``. ``t`` is unix seconds at the member.

    One with a ``reporter`` is numbered among that process's reports, and sent until acknowledged like them.
    ``job`` is that of the student whom it is about; empty where it concerns all jobs of a coordinator.
    """

    event: Name
    t: Wall
    fields: Facts = {}
    reporter: Name = ""
    seq: Count = 0
    job: Name = ""


class Report(MessagePart, frozen=True, tag="report"):
    """Figures of the training script (``edldist.report``). Sent until acknowledged.

    ``reporter`` is one process; ``seq`` counts its reports from 1. ``job`` is the one that the script belongs
    to.
    """

    reporter: Name
    seq: Count
    rank: Count
    t: Wall
    values: Metrics
    job: Name = ""


class Ack(MessagePart, frozen=True, tag="ack"):
    """All reports and numbered events of the receiver up to ``seq`` are held by the coordinator."""

    seq: Count


class StatusQuery(MessagePart, frozen=True, tag="status_query"):
    """Ask for the state of the job, and the events and reports numbered after ``since``."""

    since: Count = 0


class MemberStatus(MessagePart, frozen=True):
    """One registered member, as ``status`` shows it.

    ``group``, ``teachers``, ``job`` and the watermarks are as in ``Register``; ``samples_per_s`` is what it
    gave or took in the last seconds, None where that is not known yet.
    """

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
    teachers: list[str] = []
    samples_per_s: float | None = None
    job: str = ""
    low_watermark: int = 0
    high_watermark: int = 0


class GroupStatus(MessagePart, frozen=True):
    """One teacher group: what is asked of it, and how many workers it should have.

    Attributes:
        name: of the group.
        workers: that are here and do not drain.
        draining: workers that are about to leave.
        wanted: workers that there should be. None while nobody can tell: the coordinator has just started, or
            was told no bounds for this group.
        least, most: bounds of ``wanted``; None where nobody named any.
        held: the number that a person asked for, until they ask for ``auto``.
        demand: samples per second that the students would take if they never waited; None if not known.
        capacity: samples per second of one worker, on the average; None if not known.
        by_device: the same by the type of device.
        starved: share of the last seconds, in which they took samples, that the student that waits most did;
            None if not known.
        leaving: workers that should leave, in this order, as long as there are more than ``wanted``.
        why: the reason for ``wanted``, in words.
        shed: what is done because it is overloaded; see ``Shed.step``.
    """

    name: Name
    workers: Count
    draining: Count
    wanted: Count | None
    least: Count | None
    most: Count | None
    held: Count | None
    demand: float | None
    capacity: float | None
    by_device: dict[Name, float]
    starved: float | None
    leaving: list[Name]
    why: Text
    shed: Count = 0


class RefusedStatus(MessagePart, frozen=True):
    """Somebody whose registration was refused, and who is not let in since.

    ``group`` and ``host`` are as in ``Register``; ``reason`` is what it was told, ``ago_s`` seconds ago.
    """

    id: str
    role: str
    group: str
    host: str
    reason: str
    ago_s: float


class Scale(MessagePart, frozen=True, tag="scale"):
    """A person asks for a number of workers of a teacher group; None lets the coordinator decide again.

    Answered by ``Scaled``, or ``Refused`` with the reason.
    """

    group: Name
    workers: Count | None


class Scaled(MessagePart, frozen=True, tag="scaled"):
    """The group as it is after a ``Scale``."""

    group: GroupStatus


class Status(MessagePart, frozen=True, tag="status"):
    """The state of the job.

    ``records`` holds ``Event`` and ``Report`` values in the order of their arrival; ``seq`` is the
    number of the last one (ask for what follows with ``StatusQuery(since=seq)``). Numbers start
    again with a new ``incarnation``. ``refused``: those who were not let in, the latest last. ``wall_s`` is
    the coordinator's wall clock when it answered, ``heartbeat_interval_s`` how often members are to be heard.
    ``link``: whether the job's connections are ``sealed``, ``local`` to one machine, or ``insecure``
    (``keys.open_link``).
    """

    incarnation: Name
    uptime_s: float
    members: list[MemberStatus]
    records: list[Event | Report]
    seq: Count
    groups: list[GroupStatus] = []
    refused: list[RefusedStatus] = []
    wall_s: Wall = 0.0
    heartbeat_interval_s: float = 1.0
    link: Name = ""


class NodeQuery(MessagePart, frozen=True, tag="node_query"):
    """A student node asks about its own ranks, often, so the answer must not grow with the job.

    Attributes:
        processes: of the node's ranks.
        since: number of the last record that was looked at; see ``Status``.
    """

    processes: Annotated[list[ProcessName], msgspec.Meta(max_length=1_024)]
    since: Count = 0


class RankStatus(MessagePart, frozen=True):
    """A student member: its process, and its latest figures."""

    process: ProcessName
    stats: Facts


class NodeStatus(MessagePart, frozen=True, tag="node_status"):
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
