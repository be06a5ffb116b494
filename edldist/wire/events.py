"""The events that a member may report, with the fields of each; the coordinator drops everything else.

Whoever reads an event (the launcher's view, its tally, a node's supervisor) formats and adds up its fields,
so they have the types that are said here. Events about members (``teacher_lost``, ``student_joined``, ...)
are not among them: only the coordinator says who is here, and a supervisor kills on its word.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from edldist.errors import WireError
from edldist.keys.pair import OPERATOR, STUDENT, TEACHER
from edldist.wire.messages import Event
from edldist.wire.messages.fields import Count, Name, Text

__all__ = ["FROM_MEMBERS", "check_event", "reporters"]

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class _Fields(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of the fields of an event."""


class _ClockSkew(_Fields, frozen=True):
    id: Name
    host: Name
    skew_s: Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
    coordinator: Name


class _TeacherQuarantined(_Fields, frozen=True):
    worker: Name
    for_s: _Seconds
    error: Text


class _TeacherPutAside(_Fields, frozen=True):
    student: Name
    worker: Name
    teacher: Name
    host: Name
    reason: Text
    retracted: Count
    consumed: Count


class _TeacherReadmitted(_Fields, frozen=True):
    student: Name
    worker: Name
    teacher: Name


class _TaskRequeued(_Fields, frozen=True):
    student: Name
    worker: Name
    teacher: Name
    tasks: Count
    reason: Text


class _TaskPoisoned(_Fields, frozen=True):
    student: Name
    teacher: Name
    batch: Count
    samples: Text
    error: Text


class _LabelsMissing(_Fields, frozen=True):
    student: Name
    teacher: Name
    gone_s: _Seconds


class _CheckpointWhole(_Fields, frozen=True):
    step: Count
    bytes: Count
    seconds: _Seconds


class _CheckpointBroken(_Fields, frozen=True):
    step: Count
    reason: Text


class _LossSpiked(_Fields, frozen=True):
    step: Count
    what: Name
    value: Text
    bound: Text
    epoch: Count
    position: Count


class _RolledBack(_Fields, frozen=True):
    step: Count
    restored: Count
    batches: Count
    in_a_row: Count


class _NodeEnded(_Fields, frozen=True):
    host: Name
    code: Count


class _Remark(_Fields, frozen=True):
    text: Text


FROM_MEMBERS: dict[str, type[_Fields]] = {
    "clock_skew": _ClockSkew,
    "teacher_quarantined": _TeacherQuarantined,
    "teacher_put_aside": _TeacherPutAside,
    "teacher_readmitted": _TeacherReadmitted,
    "task_requeued": _TaskRequeued,
    "task_poisoned": _TaskPoisoned,
    "labels_missing": _LabelsMissing,
    "labels_back": _LabelsMissing,
    "checkpoint_saved": _CheckpointWhole,
    "checkpoint_restored": _CheckpointWhole,
    "checkpoint_failed": _CheckpointBroken,
    "checkpoint_damaged": _CheckpointBroken,
    "loss_spiked": _LossSpiked,
    "rolled_back": _RolledBack,
    "node_ended": _NodeEnded,
    "remark": _Remark,
}

_OTHERS = {
    "clock_skew": frozenset({STUDENT, TEACHER}),
    "remark": frozenset({STUDENT, OPERATOR}),
}
"""Who may report those that are not students' alone."""


def reporters(event: str) -> frozenset[str]:
    """The roles whose key an event is reported with; none of one that no member may report."""
    return _OTHERS.get(event, frozenset({STUDENT})) if event in FROM_MEMBERS else frozenset()


def check_event(event: Event) -> None:
    """Check that a member may report an event, and that it has exactly the fields of its kind.

    Raises:
        WireError: it may not, or a field is missing, unknown, or of another type.
    """
    fields = FROM_MEMBERS.get(event.event)
    if fields is None:
        raise WireError(
            f"no member may report the event {event.event!r}; known are {', '.join(FROM_MEMBERS)}"
        )
    try:
        msgspec.convert(event.fields, fields)
    except msgspec.ValidationError as exc:
        raise WireError(f"the event {event.event} is not as it should be: {exc}") from exc
