"""What ``edldist top`` has to show: answers of a coordinator go in, rows come out. Pure."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edldist.coordinator.members.rates import RecentRate
from edldist.observe.event_words import KINDS, happening_in_words
from edldist.observe.states import State, state_of
from edldist.observe.troubles import troubles
from edldist.observe.waiting import waits
from edldist.wire.messages import STAGES, GroupStatus, History, MemberStatus, Scalar, Status
from edldist_launch.record.tally import Figures, Tally

__all__ = ["EventRow", "Scene", "SceneMaker", "StudentRow", "WorkerRow"]

MOST_EVENTS = 500
MOST_RATES = 240
"""Of the throughput: one a second."""


@dataclass(frozen=True)
class WorkerRow:
    """One teacher worker.

    ``share`` is of its group's samples in the last seconds, ``busy`` of its time. ``queue`` is the stage
    before which most samples waited, and how much of its room they took.
    """

    id: str
    group: str
    device: str
    host: str
    pid: int
    state: State
    samples_per_s: float | None
    share: float | None
    busy: float | None
    samples: int
    held: int
    queue: str
    serves: int
    batch: str
    up_s: float
    silent_s: float
    note: str


@dataclass(frozen=True)
class StudentRow:
    """One rank. ``high`` bounds ``buffered`` (batches), 0 where it is not known; ``starved`` is a share."""

    id: str
    rank: int | None
    host: str
    pid: int
    state: State
    buffered: int
    high: int
    steps_per_s: float | None
    samples_per_s: float | None
    starved: float | None
    starved_s: float
    full_s: float
    batches: int
    workers: int
    up_s: float
    silent_s: float
    note: str


@dataclass(frozen=True)
class EventRow:
    """Something that happened, at unix seconds ``t``."""

    t: float
    words: str
    tone: str = "quiet"

    @property
    def clock(self) -> str:
        """The time of day here."""
        return time.strftime("%H:%M:%S", time.localtime(self.t))


@dataclass(frozen=True)
class Scene:
    """All that there is to show of one moment.

    Attributes:
        job: its name; empty while no student is here.
        coordinator: its address.
        link: what the job's connections are (``keys.open_link``); empty before it has answered.
        up_s: age of the coordinator; None before it has answered.
        silent_s: for how long it has not answered; None while it does.
        figures: of the job.
        rates: samples per second, one entry a second, the latest last.
        notes: what a person should know of members, and who was refused.
    """

    coordinator: str
    job: str = ""
    link: str = ""
    up_s: float | None = None
    silent_s: float | None = None
    trouble: str = ""
    figures: Figures = Figures()
    groups: Sequence[GroupStatus] = ()
    workers: Sequence[WorkerRow] = ()
    students: Sequence[StudentRow] = ()
    events: Sequence[EventRow] = ()
    rates: Sequence[float] = ()
    notes: Sequence[str] = ()


@dataclass
class _Rates:
    """Of a member's counts that only grow: how fast they did in the last seconds."""

    of: dict[tuple[str, str], RecentRate] = field(default_factory=dict)

    def see(self, member: MemberStatus, key: str, now: float) -> float | None:
        rate = self.of.setdefault((member.process + member.id, key), RecentRate())
        rate.see(member.stats.get(key), now)
        return rate.value

    def forget(self, known: set[str]) -> None:
        self.of = {key: rate for key, rate in self.of.items() if key[0] in known}


class SceneMaker:
    """Follows a job through its coordinator, whose restarts it outlives.

    Args:
        coordinator: its address, to be shown.
    """

    def __init__(self, coordinator: str) -> None:
        self._coordinator = coordinator
        self._tally = Tally()
        self._rates = _Rates()
        self._events: deque[EventRow] = deque(maxlen=MOST_EVENTS)
        self._throughput: deque[float] = deque(maxlen=MOST_RATES)
        self._rated_at = -math.inf
        self._incarnation: str | None = None
        self._scene = Scene(coordinator)
        self._silent_since: float | None = None

    @property
    def since(self) -> int:
        """The number of the last record that was seen: to be asked with."""
        return self._tally.since

    def see(self, status: Status, now: float, wall: float) -> Scene:
        """Take in an answer to a question with ``since``.

        Args:
            now: monotonic seconds.
            wall: unix seconds.
        """
        restarted = self._incarnation not in (None, status.incarnation)
        self._incarnation = status.incarnation
        lines = self._tally.observe(status, now)
        if restarted:
            self._events.append(EventRow(wall, "another coordinator answers: it was started again", "wait"))
        elif self._silent_since is not None:
            gone_s = now - self._silent_since
            self._events.append(EventRow(wall, f"the coordinator answers again after {gone_s:.0f} s"))
        self._silent_since = None
        for line in lines:
            self._note(line)
        figures = self._tally.figures(now)
        if now - self._rated_at >= 1.0:
            self._rated_at = now
            self._throughput.append(figures.samples_per_s)
        self._rates.forget({member.process + member.id for member in status.members})
        members = list(status.members)
        self._scene = Scene(
            coordinator=self._coordinator,
            job=next((member.job for member in members if member.job), ""),
            link=status.link,
            up_s=status.uptime_s,
            figures=figures,
            groups=status.groups,
            workers=self._workers(status, now),
            students=self._students(status, now),
            events=tuple(self._events),
            rates=tuple(self._throughput),
            notes=[
                *(f"{m.id} {words}" for m in members for words in [*troubles(m), *waits(m, members)]),
                *(f"{each.id} was refused: {each.reason}" for each in status.refused),
            ],
        )
        return self._scene

    def recall(self, history: History) -> Scene:
        """Take what a coordinator keeps of the run across its restarts, for what was seen until now."""
        rates = [value or 0.0 for value in history.recent.samples_per_s]
        self._throughput.clear()
        self._throughput.extend(rates)
        self._events.clear()
        for each in history.happenings:
            self._events.append(EventRow(each.t, " ".join(each.text.split()), each.tone))
        self._scene = replace(self._scene, events=tuple(self._events), rates=tuple(self._throughput))
        return self._scene

    def lost(self, trouble: str, now: float) -> Scene:
        """The coordinator does not answer: what was seen last stays, and it is said for how long."""
        self._silent_since = now if self._silent_since is None else self._silent_since
        self._scene = replace(self._scene, silent_s=now - self._silent_since, trouble=trouble)
        return self._scene

    def _note(self, line: Mapping[str, Any]) -> None:
        tone, words = KINDS.get(str(line["event"])), happening_in_words(line)
        if tone is not None and words is not None:
            self._events.append(EventRow(float(line["t"]), " ".join(words.split()), tone))

    def _workers(self, status: Status, now: float) -> list[WorkerRow]:
        workers = [member for member in status.members if member.role == "teacher"]
        given: dict[str, float] = {}
        for worker in workers:
            given[worker.group] = given.get(worker.group, 0.0) + (worker.samples_per_s or 0.0)
        return [
            WorkerRow(
                id=worker.id,
                group=worker.group,
                device=str(worker.info.get("device", "-")),
                host=worker.host,
                pid=worker.pid,
                state=state_of(worker, status),
                samples_per_s=worker.samples_per_s,
                share=_share(worker.samples_per_s, given[worker.group]),
                busy=_at_most_one(self._rates.see(worker, "busy_s", now)),
                samples=_count(worker.stats.get("samples")),
                held=_count(worker.stats.get("held")),
                queue=_fullest(worker),
                serves=_count(worker.stats.get("students")),
                batch=str(worker.stats.get("batch_size", worker.info.get("batch_size", "-"))),
                up_s=worker.joined_s,
                silent_s=worker.silent_s,
                note="; ".join([*troubles(worker), *waits(worker, status.members)]),
            )
            for worker in workers
        ]

    def _students(self, status: Status, now: float) -> list[StudentRow]:
        return [
            StudentRow(
                id=student.id,
                rank=rank if isinstance(rank := student.info.get("rank"), int) else None,
                host=student.host,
                pid=student.pid,
                state=state_of(student, status),
                buffered=_count(student.stats.get("buffered")),
                high=student.high_watermark,
                steps_per_s=self._rates.see(student, "batches", now),
                samples_per_s=student.samples_per_s,
                starved=_at_most_one(self._rates.see(student, "starved_s", now)),
                starved_s=_figure(student.stats.get("starved_s")),
                full_s=_figure(student.stats.get("backpressure_s")),
                batches=_count(student.stats.get("batches")),
                workers=_count(student.stats.get("teachers")),
                up_s=student.joined_s,
                silent_s=student.silent_s,
                note="; ".join([*troubles(student), *waits(student, status.members)]),
            )
            for student in status.members
            if student.role == "student"
        ]


def _share(rate: float | None, of: float) -> float | None:
    return None if rate is None or of <= 0 else rate / of


def _fullest(worker: MemberStatus) -> str:
    room = _count(worker.stats.get("room"))
    waiting = {stage: _count(worker.stats.get(f"{stage}_queue_samples")) for stage in STAGES}
    stage, most = max(waiting.items(), key=lambda each: each[1])
    return f"{stage} {min(1.0, most / room):.0%}" if room and most else "-"


def _at_most_one(share: float | None) -> float | None:
    return None if share is None else min(share, 1.0)


def _figure(value: Scalar) -> float:
    """What a member said, as a number: whatever is none counts for nothing."""
    sane = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53
    return float(value) if sane else 0.0  # type: ignore[arg-type]


def _count(value: Scalar) -> int:
    return int(_figure(value))
