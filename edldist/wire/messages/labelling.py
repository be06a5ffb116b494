"""Messages between a teacher worker and a student: pulls, tasks, labels and pings."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edldist.bounds import MOST_DEGRADATIONS
from edldist.labels.fingerprint import Fingerprint, VocabularyMark
from edldist.labels.grammar import CodecSpec
from edldist.wire.messages.fields import (
    MAX_FRAMES,
    MOST_LEASES,
    Count,
    Leases,
    MessagePart,
    Name,
    ProcessName,
    Seconds,
    Tensors,
    Text,
)
from edldist.wire.messages.sharing import JobShare

__all__ = [
    "Failure",
    "Hello",
    "Idle",
    "Labels",
    "Lease",
    "LeaseGroup",
    "LeaseRows",
    "Ping",
    "Pong",
    "Pull",
    "Result",
    "Return",
    "Tasks",
    "TokensTold",
    "TokensWanted",
    "Wake",
    "Welcome",
]


class Hello(MessagePart, frozen=True, tag="hello"):
    """A teacher worker greets a student that it connected to.

    ``process`` names this very process: a worker that greets again is alive, one that was started
    anew under the same name is not the one before. ``host`` is for people.
    """

    worker: Name
    teacher: Name
    fingerprint: Fingerprint
    process: ProcessName
    host: Name = ""


class TokensWanted(MessagePart, frozen=True, tag="tokens_wanted"):
    """Answer to a greeting whose vocabulary the student does not know: which tokens are these?

    The worker tells, and may be welcomed or refused then.
    """


class TokensTold(MessagePart, frozen=True, tag="tokens_told"):
    """The tokens of a worker's vocabulary, of that mark: one frame (``edldist.vocabulary.tokens``)."""

    mark: VocabularyMark


class Welcome(MessagePart, frozen=True, tag="welcome"):
    """The student takes the worker. It will ping it every ``ping_interval_s``.

    ``codecs`` are those in which it may ask for labels beside the worker's own, where the fleet is
    overloaded. A worker that cannot make one answers ``Refused``.
    """

    student: Name
    ping_interval_s: Seconds
    heartbeat_ttl_s: Seconds
    max_frame_bytes: Count
    share: JobShare = JobShare()
    codecs: Annotated[list[CodecSpec], msgspec.Meta(max_length=MOST_DEGRADATIONS)] = []


class Pull(MessagePart, frozen=True, tag="pull"):
    """The worker has room for tasks that cost so much together.

    A sample costs 1, one with a length costs its length. ``seq`` grows from pull to pull of this worker.
    """

    seq: Count
    room: Annotated[int, msgspec.Meta(ge=1)]


class Lease(MessagePart, frozen=True, array_like=True):
    """A task that is handed to a worker. ``own_pass`` asks for a forward pass without other tasks.

    ``cost`` is what it takes of the room of a pull, and its rows in the tensors of its group: as many as it
    has ``samples``, unless these have lengths. ``labels`` is how many rows of labels answer it, where
    they are not as many: where labels are wanted of some of the rows, or of whole samples.

    ``compared`` asks for no labels but for what workers are compared by (``labels.comparison``), in a pass
    without other tasks, and otherwise as labels are made.
    """

    id: Count
    samples: Count
    cost: Count
    own_pass: bool
    labels: Count | None = None
    compared: bool = False


class LeaseGroup(MessagePart, frozen=True, array_like=True):
    """Leases whose samples lie back to back, in this order, in each of the next ``len(tensors)`` frames.

    Small tasks travel together; a large one is a group of its own. ``codec`` is the one in which their labels
    are to travel, where it is not the worker's own.
    """

    leases: Annotated[list[Lease], msgspec.Meta(min_length=1, max_length=MOST_LEASES)]
    tensors: Tensors
    codec: CodecSpec | None = None


class Tasks(MessagePart, frozen=True, tag="tasks"):
    """Answer to a pull. ``buffered`` is the number of batches that the student's loop could take now."""

    seq: Count
    groups: Annotated[list[LeaseGroup], msgspec.Meta(max_length=MAX_FRAMES)]
    buffered: Count


class Idle(MessagePart, frozen=True, tag="idle"):
    """Answer to a pull: nothing to give now; a ``Wake`` follows when there is.

    ``quarantine`` says why this very worker gets nothing although there is work.
    """

    seq: Count
    buffered: Count
    quarantine: Text = ""


class Wake(MessagePart, frozen=True, tag="wake"):
    """The student has tasks again for a worker that it answered ``Idle``."""

    buffered: Count


class LeaseRows(MessagePart, frozen=True, array_like=True):
    """So many rows of a result answer this lease."""

    lease: Count
    count: Count


class Result(MessagePart, frozen=True, array_like=True):
    """Labels of one forward pass: the next ``len(tensors)`` frames, in which the rows lie back to back.

    ``version`` is the teacher's, as in its greeting: what tells these labels from an earlier model's.
    ``codec`` is the one that was asked for, where it is not the worker's own.
    """

    rows: Annotated[list[LeaseRows], msgspec.Meta(min_length=1, max_length=MOST_LEASES)]
    version: Name
    compute_s: Annotated[float, msgspec.Meta(ge=0, le=1e12)]
    tensors: Tensors
    codec: CodecSpec | None = None


class Labels(MessagePart, frozen=True, tag="labels"):
    """The results of one forward pass for one student, and the pull for more if it is due."""

    results: Annotated[list[Result], msgspec.Meta(max_length=MAX_FRAMES)]
    pull: Pull | None = None


class Failure(MessagePart, frozen=True, tag="failure"):
    """The model raised on these leases; ``error`` is its traceback.

    ``final``: what the model takes or returns is not what it must be: every attempt would end the same, of
    whatever samples. ``certain``: every attempt at these samples would.
    """

    leases: Leases
    error: Text
    final: bool = False
    certain: bool = False


class Return(MessagePart, frozen=True, tag="return"):
    """The worker gives back leases without blame: it drains, or has spoilt their inputs."""

    leases: Leases


class Ping(MessagePart, frozen=True, tag="ping"):
    """The student probes the link: shows a dead peer at once and proves that the student lives."""

    seq: Count
    buffered: Count


class Pong(MessagePart, frozen=True, tag="pong"):
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
