"""The course of a run, as a coordinator keeps it: what ``edldist top``, the dashboard and reports draw.

One form for all: the answer to a ``HistoryQuery``, ``/history`` as JSON, and the file ``history.json`` in a
job's folder.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from edldist.wire.messages.fields import Count, MessagePart, Name, Scalar, Wall

__all__ = ["Course", "Figure", "GroupCourse", "Happening", "History", "HistoryQuery", "Progress"]


class HistoryQuery(MessagePart, frozen=True, tag="history_query"):
    """Ask for the course of the run; with ``since``, only for what came after that moment (unix seconds)."""

    since: Wall = 0.0


class GroupCourse(MessagePart, frozen=True):
    """One teacher group: a figure for each row of its ``Course``, None while the group was not here.

    Attributes:
        samples_per_s: that its workers labelled.
        workers: that were here and did not drain.
        wanted: workers that there should be; None while nobody could tell.
    """

    samples_per_s: list[float | None]
    workers: list[float | None]
    wanted: list[float | None]


class Course(MessagePart, frozen=True):
    """How a run went: a row for each step of time in which a coordinator looked, the earliest first.

    A row holds means over its step. No row stands for a time in which nobody looked.

    Attributes:
        step_s: length of the steps, in seconds.
        t: end of each, in unix seconds by the coordinator's clock.
        samples_per_s: that the student ranks took.
        students: student ranks that were here.
        buffered: labelled batches that wait for the loop of the student rank that has fewest of them. None
            without ranks.
        starved: share of the time in which the loop of the rank that waited most waited for labels.
        backpressure: share of the time in which the queue of that rank was full whose queue was full for
            longest.
        groups: of teachers, by name.
    """

    step_s: Annotated[float, msgspec.Meta(gt=0)]
    t: list[float]
    samples_per_s: list[float | None]
    students: list[float | None]
    buffered: list[float | None]
    starved: list[float | None]
    backpressure: list[float | None]
    groups: dict[Name, GroupCourse]


class Figure(MessagePart, frozen=True):
    """What a script reported under one name, by rank 0 (``edldist.report``).

    Attributes:
        job: whose script; empty where it has no name.
        name: as it was reported.
        kind: figures of one kind belong into one chart.
        every: so many reports make one point: their means.
        t: when the last of them was made, in unix seconds.
        step: the last step that had been reported by then; None without any.
        value: None for what is no finite number.
        last: the latest value.
    """

    job: Name
    name: Name
    kind: Name
    every: Count
    t: list[float]
    step: list[float | None]
    value: list[float | None]
    last: float | None


class Progress(MessagePart, frozen=True):
    """How far a job is, by what rank 0 of its script reported last; None for what it never did."""

    job: Name
    step: float | None = None
    steps: float | None = None
    epoch: float | None = None
    epochs: float | None = None


class Happening(MessagePart, frozen=True):
    """One thing that happened.

    Attributes:
        t: unix seconds.
        event: as in ``events.jsonl``.
        tone: ``good``, ``quiet``, ``wait`` or ``bad``: how a person should take it.
        text: in words.
        id: of the member that it is about; empty where it is about none.
        fields: of the event, those that are short.
    """

    t: float
    event: Name
    tone: Name
    text: str
    id: str = ""
    fields: dict[Name, Scalar] = {}


class History(MessagePart, frozen=True, tag="history"):
    """The course of a run.

    Attributes:
        incarnation: of the coordinator that tells it.
        wall_s: its clock when it told; ask for what follows with ``since`` of this.
        began_s: the first moment that is known, in unix seconds.
        since: what came after that moment is told; 0: all.
        recent: the last minutes, second by second.
        whole: the whole run, in steps that grow with it; None where only what followed a moment was asked
            for.
        figures: that were reported.
        progress: of each job.
        happenings: the latest of each kind, the earliest first.
    """

    incarnation: Name
    wall_s: float
    began_s: float
    since: Wall
    recent: Course
    whole: Course | None
    figures: list[Figure]
    progress: list[Progress]
    happenings: list[Happening]
