"""The events of a run as series over steps and over time, for whoever draws them. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edldist.observe.event_words import happening_in_words

__all__ = ["Happened", "Series", "collect", "smoothed"]

ENDS = ("job_started", "job_completed", "job_failed", "job_interrupted")
"""What lies between two runs of a folder; one that was killed leaves only the next one's start."""

CHANGES = {
    "teacher_joined": "joined",
    "teacher_left": "left",
    "teacher_crashed": "crashed",
    "teacher_lost": "lost",
}
_NOT_METRICS = ("t", "event", "rank", "step", "steps", "epoch", "epochs")
LARGEST = 2.0**53
_SMOOTH_FROM = 60
"""Points: fewer are shown as they are."""
_WINDOWS = 25
_NOISE = 0.01


@dataclass(frozen=True)
class Happened:
    """An event of a run.

    Attributes:
        at_s: on the axis of ``Series.times_s``; before the first progress it is negative.
        t: unix seconds, by the clock of who reported it.
        event: its name.
        words: what it says to a person.
        line: all of it.
    """

    at_s: float
    t: float
    event: str
    words: str
    line: Mapping[str, Any]


@dataclass
class Series:
    """What is plotted.

    ``metrics``: for each reported name, its value by step (a step trained again after a restart counts with
    its last value). ``times_s``, ``samples_per_s``, ``workers``, ``buffered`` (batches), ``starved`` (the
    share of the time in which the student that waits most waited for labels) and ``steps``: one entry for
    each progress line, in seconds of running since the first. ``pauses``: at which of these seconds the job
    stood still, and for how long; the figures there are NaN, so that no line crosses a pause. ``changes``: at
    which of these seconds a teacher worker came or went while the job trained, and what it did.
    ``happened``: all that a person should hear of, by the same axis.
    """

    metrics: dict[str, dict[int, float]] = field(default_factory=dict)
    times_s: list[float] = field(default_factory=list)
    samples_per_s: list[float] = field(default_factory=list)
    workers: list[float] = field(default_factory=list)
    buffered: list[float] = field(default_factory=list)
    starved: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    pauses: list[tuple[float, float]] = field(default_factory=list)
    changes: list[tuple[float, str]] = field(default_factory=list)
    happened: list[Happened] = field(default_factory=list)

    def step_at(self, at_s: float) -> float | None:
        """The step that the job was at; None before its first and after its last progress."""
        if not self.times_s or not self.times_s[0] <= at_s <= self.times_s[-1]:
            return None
        step = self.steps[min(bisect_left(self.times_s, at_s), len(self.steps) - 1)]
        return None if math.isnan(step) else step


class _Collector:
    def __init__(self) -> None:
        self.series = Series()
        self.start: float | None = None  # the wall clock's time at second 0 of the axis
        self.step = 0
        self.last_t = 0.0
        self.last_starved_s: float | None = None
        self.ended = False
        self.changes: list[tuple[float, str]] = []  # since the last progress line
        self.crashed: set[object] = set()
        self.early: list[Mapping[str, Any]] = []  # told before the axis begins

    def report(self, event: Mapping[str, Any]) -> None:
        if (step := _number(event.get("step"))) is not None:
            self.step = int(step)
        for key, told in event.items():
            if key not in _NOT_METRICS and (value := _number(told)) is not None:
                self.series.metrics.setdefault(key, {})[self.step] = value

    def progress(self, event: Mapping[str, Any]) -> None:
        series, t = self.series, event["t"]
        if self.start is None:
            self.start = t
            early, self.early = self.early, []
            for told in early:
                self.happened(told)
        if self.ended and series.times_s:
            self._pause(t - self.last_t)
            self.start += t - self.last_t
            self.last_starved_s = None
        elif series.times_s:
            series.changes += [(at - self.start, what) for at, what in self.changes]
        self.changes.clear()
        starved_s, passed_s = _number(event.get("starved_s")), t - self.last_t
        share = math.nan
        if starved_s is not None and self.last_starved_s is not None and passed_s > 0:
            share = max(0.0, min(1.0, (starved_s - self.last_starved_s) / passed_s))
        self.last_starved_s = starved_s
        self.ended, self.last_t = False, t
        series.times_s.append(t - self.start)
        for name in ("samples_per_s", "workers", "buffered"):
            getattr(series, name).append(_number(event.get(name)) or 0.0)
        series.starved.append(share)
        series.steps.append(_number(event.get("step")) or 0.0)

    def change(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "teacher_lost" and event.get("id") in self.crashed:
            return  # the launcher knew it at once, and said more
        if event["event"] == "teacher_crashed":
            self.crashed.add(event.get("id"))
        self.changes.append((event["t"], f"{event.get('id')} {CHANGES[event['event']]}"))

    def happened(self, event: Mapping[str, Any]) -> None:
        words = _words(event)
        if words is None:
            return
        if self.start is None:
            self.early.append(event)
            return
        told = Happened(event["t"] - self.start, event["t"], str(event["event"]), words, event)
        self.series.happened.append(told)

    def _pause(self, pause_s: float) -> None:
        """The run that follows began this long after the one before was last seen at work."""
        series = self.series
        at_s = series.times_s[-1]
        series.pauses.append((at_s, pause_s))
        series.times_s.append(at_s)
        for name in ("samples_per_s", "workers", "buffered", "starved", "steps"):
            getattr(series, name).append(math.nan)


def collect(events: Iterable[Mapping[str, Any]]) -> Series:
    """Sort events into series; reports of other ranks than 0 are left out."""
    collector = _Collector()
    for event in events:
        if event["event"] == "report":
            if event.get("rank") == 0:
                collector.report(event)
        elif event["event"] == "progress":
            collector.progress(event)
        else:
            collector.happened(event)
            if event["event"] in ENDS:
                collector.ended = True
            elif event["event"] in CHANGES:
                collector.change(event)
    if (
        collector.start is None and collector.early
    ):  # nothing made progress: the axis begins with what was told
        collector.start = collector.early[0]["t"]
        for event in collector.early:
            collector.happened(event)
    return collector.series


def smoothed(values: Sequence[float]) -> list[float] | None:
    """Each value's mean with those around it; None where that would say nothing new.

    A window of a 25th of all values, the same to both sides and smaller at the ends, so that the line does
    not lag behind what it follows; what is not known (NaN) is left out of it, and stays so. Few values, or
    values without noise, are shown as they are.
    """
    count = len(values)
    known = [value for value in values if math.isfinite(value)]
    if len(known) < _SMOOTH_FROM:
        return None
    half = max(1, count // _WINDOWS // 2)
    sums, counts = [0.0], [0]
    for value in values:
        sums.append(sums[-1] + (value if math.isfinite(value) else 0.0))
        counts.append(counts[-1] + math.isfinite(value))
    means = []
    for at, value in enumerate(values):
        reach = min(half, at, count - 1 - at)
        first, last = at - reach, at + reach + 1
        known_there = math.isfinite(value)
        means.append((sums[last] - sums[first]) / (counts[last] - counts[first]) if known_there else math.nan)
    spread = max(known) - min(known)
    apart = sum(abs(m - v) for m, v in zip(means, values, strict=True) if math.isfinite(v)) / len(known)
    return means if spread > 0 and apart > _NOISE * spread else None


def _words(event: Mapping[str, Any]) -> str | None:
    """What an event says to a person who reads about the run afterwards."""
    name, who = str(event["event"]), event.get("id", "")
    if name == "job_started":
        return "edldist run started"
    if name in ("job_completed", "job_failed", "job_interrupted"):
        return f"job {name[4:]}" + (f": {event['reason']}" if event.get("reason") else "")
    role, _, what = name.partition("_")
    if role in ("teacher", "student", "coordinator") and what in ("crashed", "restarted", "hopeless"):
        code = f" (exit code {event['code']})" if "code" in event else ""
        return f"{role} {who} {what}{code}"
    return happening_in_words(event)


def _number(value: object) -> float | None:
    """The figure in what a file says, or None: only finite numbers of sane size are figures."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < LARGEST else None  # NaN is less than nothing
