"""The course of a run: looks at the members, reports and events go in; bounded rows come out. Pure.

However long a run is, at most this is kept: the last ten minutes second by second (``RECENT_ROWS``), the
whole run in at most ``WHOLE_ROWS`` steps of equal length, at most ``POINTS`` points of each of
``MOST_FIGURES`` reported figures, and the latest ``MOST_OF_A_KIND`` events of each kind. Whenever there are
too many steps, they become twice as long and each two are put together (their mean, weighed by time); so do
the points of a figure. A run of a day is kept in steps of 128 seconds.

It has a clock of its own, which begins at the wall clock's time and never goes back: ``t`` is when the
coordinator heard of a thing, so that no member's clock matters.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from edldist.observe.event_words import KINDS, happening_in_words
from edldist.observe.panels import kind_of
from edldist.wire.messages import (
    Course,
    Event,
    Figure,
    GroupCourse,
    Happening,
    History,
    Progress,
    Report,
    Scalar,
)

__all__ = ["EVERY_S", "Key", "RunHistory"]

EVERY_S = 1.0
"""How often to look at the members."""
RECENT_ROWS = 600
WHOLE_ROWS = 1_024
POINTS = 1_024
MOST_FIGURES = 64
MOST_GROUPS = 32
MOST_JOBS = 16
MOST_OF_A_KIND = 200
MOST_TEXT = 300
MOST_FIELDS = 8
GAP_S = 5.0
"""A row speaks for so many seconds at most: longer ago nobody looked."""
LARGEST = 2.0**53

Key = tuple[str, str]
"""Of a figure in a row: the teacher group, empty for the students, and the name of a field."""

_OF_STUDENTS = ("samples_per_s", "students", "buffered", "starved", "backpressure")
_OF_GROUPS = ("samples_per_s", "workers", "wanted")
_POSITION = ("step", "steps", "epoch", "epochs")


class _Row(NamedTuple):
    t: float
    seconds: float
    values: Mapping[Key, float]


def _together(one: _Row, other: _Row) -> _Row:
    """Two rows as one: the mean of what is known, weighed by time."""
    values = dict(one.values)
    seconds = one.seconds + other.seconds
    for key, value in other.values.items():
        mine = values.get(key)
        known = mine is not None and seconds > 0
        values[key] = (mine * one.seconds + value * other.seconds) / seconds if known else value  # type: ignore[operator]
    return _Row(other.t, seconds, values)


class _Steps:
    """Rows of a time without end, in so few steps of equal length that they are bounded.

    Invariant: no two rows lie in one step, and there are at most ``most``.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.step_s = EVERY_S
        self.rows: list[_Row] = []

    def add(self, row: _Row) -> None:
        if self.rows and self._step_of(self.rows[-1]) == self._step_of(row):
            self.rows[-1] = _together(self.rows[-1], row)
            return
        self.rows.append(row)
        while len(self.rows) > self._most:
            self.step_s *= 2
            rows, self.rows = self.rows, []
            for each in rows:
                self.add(each)

    def _step_of(self, row: _Row) -> int:
        # A row stands for the time before ``t``; at the end of a step it belongs to that step.
        return math.ceil(row.t / self.step_s - 1e-9)


class _Point(NamedTuple):
    t: float
    step: float | None
    value: float | None


@dataclass
class _Points:
    """A reported figure without end, in few enough points: each is the mean of ``every`` reports."""

    every: int = 1
    points: list[_Point] = field(default_factory=list)
    waiting: list[_Point] = field(default_factory=list)
    last: float | None = None

    def add(self, point: _Point) -> None:
        self.last = point.value
        self.waiting.append(point)
        if len(self.waiting) < self.every:
            return
        self.points.append(_mean(self.waiting))
        self.waiting.clear()
        if len(self.points) > POINTS:
            self.points = [_mean(self.points[i : i + 2]) for i in range(0, len(self.points), 2)]
            self.every *= 2


def _mean(points: Sequence[_Point]) -> _Point:
    """Where and when the last one was, with the mean of those that are numbers."""
    values = [point.value for point in points if point.value is not None]
    last = points[-1]
    return _Point(last.t, last.step, sum(values) / len(values) if values else None)


class RunHistory:
    """Keeps the course of a run. Any thread may ask; a lock is held for as long as lists are copied.

    Survives a restart of the coordinator if what it ``tell``s is kept and given to the next one's ``recall``.
    Does not guarantee that a row stands for exactly its step: it has what was seen in it.

    Args:
        incarnation: of the coordinator.
        now: monotonic seconds.
        wall: unix seconds.
    """

    def __init__(self, incarnation: str, now: float, wall: float) -> None:
        self._incarnation = incarnation
        self._lock = threading.Lock()
        self._ahead_s = wall - now
        self._began = self._latest = wall
        self._looked_at: float | None = None
        self._recent: deque[_Row] = deque(maxlen=RECENT_ROWS)
        self._whole = _Steps(WHOLE_ROWS)
        self._figures: dict[tuple[str, str], _Points] = {}
        self._positions: dict[str, dict[str, float]] = {}
        self._happened: dict[str, deque[Happening]] = {}
        self.changes = 0
        """Grows with everything that is taken in."""

    def recall(self, kept: History) -> None:
        """Go on with what a former coordinator kept; to be called before anything is taken in."""
        with self._lock:
            last = max((kept.wall_s, *kept.recent.t[-1:]))
            self._ahead_s += max(0.0, last - self._latest)  # this clock may be behind the former one's
            self._latest = max(self._latest, last)
            self._began = min(kept.began_s, self._began)
            if kept.whole is not None:
                self._whole.step_s = max(EVERY_S, kept.whole.step_s)
                for row in _rows(kept.whole):
                    self._whole.add(row)
            self._recent.extend(_rows(kept.recent))
            for figure in kept.figures[:MOST_FIGURES]:
                columns = zip(figure.t, figure.step, figure.value, strict=False)
                points = [_Point(*each) for each in columns][-POINTS:]
                self._figures[figure.job, figure.name] = _Points(
                    max(1, figure.every), points, last=figure.last
                )
            for place in kept.progress[:MOST_JOBS]:
                told = {name: getattr(place, name) for name in _POSITION}
                self._positions[place.job] = {name: told[name] for name in told if told[name] is not None}
            for happening in kept.happenings:
                self._of_kind(happening.event).append(happening)

    def due(self, now: float) -> bool:
        """Whether it is time to look at the members."""
        return self._looked_at is None or now - self._looked_at >= EVERY_S - 1e-6

    def look(self, values: Mapping[Key, float], now: float) -> None:
        """Take in what all members do now: a figure for each key."""
        since_s = EVERY_S if self._looked_at is None else min(now - self._looked_at, GAP_S)
        with self._lock:
            self._looked_at = now
            row = _Row(self._time(now), since_s, values)
            self._recent.append(row)
            self._whole.add(row)

    def report(self, report: Report, now: float) -> None:
        """Take in what a script reported; of other ranks than 0 it is not kept, as in ``result.json``."""
        if report.rank != 0:
            return
        with self._lock:
            t = self._time(now)
            position = self._positions.get(report.job)
            if position is None:
                if len(self._positions) >= MOST_JOBS:
                    return
                position = self._positions[report.job] = {}
            for name in _POSITION:
                if (place := _figure(report.values.get(name))) is not None:
                    position[name] = place
            for name, value in report.values.items():
                if name in _POSITION or not isinstance(value, int | float) or isinstance(value, bool):
                    continue
                key = (report.job, name)
                if key in self._figures or len(self._figures) < MOST_FIGURES:
                    point = _Point(t, position.get("step"), _figure(value))
                    self._figures.setdefault(key, _Points()).add(point)

    def happened(self, event: Event, now: float) -> None:
        """Take in an event; kinds that only the record needs are not kept."""
        tone = KINDS.get(event.event)
        if tone is None:
            return
        text = happening_in_words({**event.fields, "event": event.event}) or event.event.replace("_", " ")
        who = event.fields.get("id", event.fields.get("worker", ""))
        fields = {
            name: value
            for name, value in event.fields.items()
            if not isinstance(value, str) or len(value) <= MOST_TEXT // 4
        }
        if event.event == "teacher_refused":  # the next coordinator tells it
            fields["reason"] = _shortened(str(event.fields.get("reason", "")))
        with self._lock:
            happening = Happening(
                t=self._time(now),
                event=event.event,
                tone=tone,
                text=_shortened(text),
                id=str(who)[:MOST_TEXT],
                fields=dict(list(fields.items())[:MOST_FIELDS]),
            )
            self._of_kind(event.event).append(happening)

    def refused(self) -> list[Happening]:
        """The last refusal of each worker that was not like its group, and was not let in since."""
        with self._lock:
            let_in = {each.id: each.t for each in self._of_kind("teacher_joined")}
            last = {each.id: each for each in self._of_kind("teacher_refused")}
        return [
            each for each in sorted(last.values(), key=attrgetter("t")) if each.t > let_in.get(each.id, 0.0)
        ]

    def tell(self, since: float = 0.0) -> History:
        """The course of the run; with ``since``, what came after that moment, and no ``whole``."""
        with self._lock:
            recent = list(self._recent)
            whole = None if since > 0 else list(self._whole.rows)
            step_s = self._whole.step_s
            figures = [(key, each.every, list(each.points), each.last) for key, each in self._figures.items()]
            progress = [(job, dict(position)) for job, position in self._positions.items()]
            happenings = [each for kind in self._happened.values() for each in kind if each.t > since]
            latest = self._latest
        at = attrgetter("t")
        return History(
            incarnation=self._incarnation,
            wall_s=latest,
            began_s=self._began,
            since=since,
            recent=_course(recent[bisect_right(recent, since, key=at) :], EVERY_S),
            whole=None if whole is None else _course(whole, step_s),
            figures=[
                _told(key, every, points[bisect_right(points, since, key=at) :], last)
                for key, every, points, last in figures
            ],
            progress=[Progress(job=job, **position) for job, position in progress],
            happenings=sorted(happenings, key=at),
        )

    def _time(self, now: float) -> float:
        self.changes += 1
        # A microsecond later than all before: who has asked for what came until then misses nothing.
        self._latest = max(self._latest + 1e-6, now + self._ahead_s)
        return self._latest

    def _of_kind(self, event: str) -> deque[Happening]:
        return self._happened.setdefault(event, deque(maxlen=MOST_OF_A_KIND))


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 2]} …"


def _figure(value: Scalar) -> float | None:
    """A number of sane size, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < LARGEST else None  # NaN is less than nothing


def _course(rows: Sequence[_Row], step_s: float) -> Course:
    names = dict.fromkeys(group for row in rows for group, _ in row.values if group)
    groups = sorted(names)[:MOST_GROUPS]
    return Course(
        step_s=step_s,
        t=[row.t for row in rows],
        **{name: [row.values.get(("", name)) for row in rows] for name in _OF_STUDENTS},
        groups={
            group: GroupCourse(
                **{name: [row.values.get((group, name)) for row in rows] for name in _OF_GROUPS}
            )
            for group in groups
        },
    )


def _rows(course: Course) -> list[_Row]:
    """The rows of a course that was told; columns that are too short count as unknown there."""
    columns: dict[Key, Sequence[float | None]] = {("", name): getattr(course, name) for name in _OF_STUDENTS}
    for group, told in course.groups.items():
        columns |= {(group, name): getattr(told, name) for name in _OF_GROUPS}
    return [
        _Row(
            t,
            course.step_s,
            {key: column[i] for key, column in columns.items() if i < len(column) and column[i] is not None},  # type: ignore[misc]
        )
        for i, t in enumerate(course.t)
    ]


def _told(key: tuple[str, str], every: int, points: Sequence[_Point], last: float | None) -> Figure:
    job, name = key
    return Figure(
        job=job,
        name=name,
        kind=kind_of(name),
        every=every,
        t=[point.t for point in points],
        step=[point.step for point in points],
        value=[point.value for point in points],
        last=last,
    )
