"""What a run amounts to so far: status answers go in, figures and event lines come out. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edldist.wire.messages import Event, GroupStatus, MemberStatus, Report, Scalar, Status
from edldist_launch.record.memory import TallyMemory

__all__ = ["Figures", "Tally"]

POSITION_KEYS = ("step", "steps", "epoch", "epochs")
RATE_WINDOW_S = 5.0
LARGEST = 2**53
"""Beyond it a float is no exact count any more."""
EventLine = dict[str, Any]


@dataclass(frozen=True)
class Figures:
    """The figures of one moment, for people.

    Rates are over the last seconds. ``eta_s`` is None until the script reports ``steps`` (or
    ``epochs``) and a rate is known.
    """

    step: int | None = None
    steps: int | None = None
    epoch: int | None = None
    epochs: int | None = None
    samples_per_s: float = 0.0
    steps_per_s: float = 0.0
    eta_s: float | None = None
    workers: int = 0
    ranks: int = 0
    buffered: int = 0
    starved_s: float = 0.0
    skipped_samples: int = 0
    missed_samples: int = 0
    metrics: Mapping[str, Scalar] = field(default_factory=dict)


class Tally:
    """Adds up a run, of whatever its members say: a figure that is no sane number counts as not given.

    A coordinator that restarts numbers its records anew (``since`` goes back to 0) and hears
    again from everyone: reports are counted once by (reporter, seq), and members once by id.

    Definitions, as ``result.json`` states them:

    - ``steps``: the last that rank 0 reported as ``step``, or a later one of a checkpoint that was saved or
      restored; without any of these, the most batches that a rank took.
    - ``epochs``: those that are complete, by the position of any training loop or by what rank 0 reported
      as ``epoch``, whichever is further: a script that names the epoch that runs, from 0, is one behind at
      its end.
    - ``samples``: labelled samples that training loops took in this run, whatever an earlier one took that
      it goes on with, summed over every member that ever was a student. After a restart of students, samples
      since the last checkpoint count again: they were labelled and consumed again. Who takes over from
      another one that watched this run ``recall``s what that one kept.
    - ``skipped_samples``: those that no worker could label and that ``on_poison: skip`` left out, summed
      in the same way.
    - ``missed_samples``: those that loops took without labels of a teacher that was missing, once for each
      such teacher, summed in the same way.
    - ``left_out_samples``: those that loops consumed without a step, because they had made a loss spike,
      summed in the same way.
    - ``spikes``, ``rollbacks``: how often training met one, and went back behind it.
    - ``retracted_labels``, ``doubtful_labels``: of workers that were put aside, those that others made anew,
      and those that loops had taken already, summed in the same way.
    - ``samples_per_s``: samples over the time from the first to the last batch, as far as they were seen; by
      the loops' own clocks if all fell into one observation.
    - ``starved_s``, ``backpressure_s``: the most of any student member.
    - ``worker_s``: seconds of all teacher workers together in which they were in the job, as far as it was
      seen; what an accountant multiplies.
    - teachers ``left`` and ``lost``: while the students ran, not when the job ends its workers.
    - ``student_restarts``: further processes that one rank needed, the most over ranks.

    ``checkpoint`` is the step that was saved or restored last, None before.
    """

    def __init__(self) -> None:
        self.incarnation: str | None = None
        self.since = 0
        self.metrics: dict[str, Scalar] = {}
        self.members: list[MemberStatus] = []
        self.groups: list[GroupStatus] = []
        self.teachers = {"joined": 0, "left": 0, "lost": 0}
        self.spikes = {"spikes": 0, "rollbacks": 0}
        self.checkpoint: int | None = None
        self.frozen = False
        self._worker_s = 0.0
        self._looked_at: float | None = None
        self._present: set[str] = set()
        self._numbered: dict[str, int] = {}
        self._position: dict[str, int] = {}
        self._stats: dict[str, dict[str, float]] = {}
        self._processes: dict[Scalar, set[str]] = {}
        self._evaluating: set[str] = set()  # members whose epochs are none of the training's
        self._first: tuple[float, float] | None = None
        self._last: tuple[float, float] = (0.0, 0.0)
        self._window: deque[tuple[float, float, float]] = deque()

    def observe(self, status: Status, now: float) -> list[EventLine]:
        """Take in one answer; return what is new as event lines (``t``, ``event``, fields).

        Args:
            status: the answer to a query with ``self.since``.
            now: monotonic seconds.
        """
        self._note_workers(now)
        if status.incarnation != self.incarnation:
            restarted = self.incarnation is not None
            self.incarnation = status.incarnation
            if restarted and self.since > 0:
                # These records were cut at a number of the former life: ask again from the start.
                self.since = 0
                self.members, self.groups = list(status.members), list(status.groups)
                return []
        self.since = max(self.since, status.seq)
        self.members, self.groups = list(status.members), list(status.groups)
        lines = [line for record in status.records if (line := self._record(record)) is not None]
        for member in status.members:
            if member.role == "student":
                if member.info.get("checkpointed") is False:
                    self._evaluating.add(member.id)
                self._note_stats(member.id, member.stats)
                self._processes.setdefault(member.info.get("rank"), set()).add(member.process)
        self._note_rate(now)
        return lines

    def _note_workers(self, now: float) -> None:
        """Those that were here at the last look have been since then."""
        if self._looked_at is not None:
            workers = sum(member.role == "teacher" for member in self.members)
            self._worker_s += workers * max(0.0, now - self._looked_at)
        self._looked_at = now

    def memory(self, now: float) -> TallyMemory:
        """All that a successor needs to go on with these figures."""
        ages = [(now - at, samples) for at, samples in (self._first or self._last, self._last)]
        return TallyMemory(
            metrics=dict(self.metrics),
            teachers=dict(self.teachers),
            spikes=dict(self.spikes),
            checkpoint=self.checkpoint,
            present=sorted(self._present),
            numbered=dict(self._numbered),
            position=dict(self._position),
            stats={member_id: dict(stats) for member_id, stats in self._stats.items()},
            processes=[(rank, sorted(seen)) for rank, seen in self._processes.items()],
            evaluating=sorted(self._evaluating),
            first=None if self._first is None else ages[0],
            last=ages[1],
            worker_s=self._worker_s,
        )

    def recall(self, memory: TallyMemory, kept_at: float) -> None:
        """Begin with the figures of a predecessor; to be called before anything is observed.

        Args:
            memory: what it kept.
            kept_at: when, in this process's monotonic seconds.
        """
        self.metrics, self.teachers = dict(memory.metrics), dict(memory.teachers)
        self.spikes, self.checkpoint = dict(memory.spikes), memory.checkpoint
        self._present, self._evaluating = set(memory.present), set(memory.evaluating)
        self._numbered, self._position = dict(memory.numbered), dict(memory.position)
        self._stats = {member_id: dict(stats) for member_id, stats in memory.stats.items()}
        self._processes = {rank: set(seen) for rank, seen in memory.processes}
        self._worker_s = memory.worker_s
        if memory.first is not None:
            self._first = (kept_at - memory.first[0], memory.first[1])
            self._last = (kept_at - memory.last[0], memory.last[1])

    def freeze(self) -> None:
        """The students are done: from now on, teachers that leave do so because the job ends them."""
        self.frozen = True

    def thaw(self) -> None:
        """Students train again."""
        self.frozen = False

    def crashed(self, member_id: str) -> None:
        """The launcher saw a teacher worker die; the coordinator may be too young to have known it."""
        if member_id in self._present:
            self._present.discard(member_id)
            self.teachers["lost"] += not self.frozen

    @property
    def wanted(self) -> set[str]:
        """Teacher groups that students want and of which no worker is present, as far as known."""
        here = {member.group for member in self.members if member.role == "teacher"}
        return {name for member in self.members for name in member.teachers} - here

    @property
    def joined_ids(self) -> set[str]:
        """Members that are present as far as known."""
        return self._present | {member.id for member in self.members}

    def figures(self, now: float) -> Figures:
        """The figures of this moment."""
        while len(self._window) > 2 and now - self._window[1][0] > RATE_WINDOW_S:
            self._window.popleft()
        samples_per_s = steps_per_s = 0.0
        if self._window and (span_s := now - self._window[0][0]) > 0:
            samples_per_s = (self._total("samples") - self._window[0][1]) / span_s
            steps_per_s = (self.steps - self._window[0][2]) / span_s
        students = [member for member in self.members if member.role == "student"]
        left = [key for key in ("steps", "epochs") if key in self._position]
        eta_s = None
        if "steps" in left and steps_per_s > 0:
            eta_s = max(0, self._position["steps"] - self.steps) / steps_per_s
        return Figures(
            step=self._position.get("step", self._batches() or None),
            steps=self._position.get("steps"),
            epoch=self._position.get("epoch"),
            epochs=self._position.get("epochs"),
            samples_per_s=max(0.0, samples_per_s),
            steps_per_s=max(0.0, steps_per_s),
            eta_s=eta_s,
            workers=sum(member.role == "teacher" for member in self.members),
            ranks=len(students),
            buffered=sum(int(_number(member.stats.get("buffered")) or 0) for member in students),
            starved_s=self._most("starved_s"),
            skipped_samples=int(self._total("skipped")),
            missed_samples=int(self._total("missed")),
            metrics=dict(self.metrics),
        )

    @property
    def steps(self) -> int:
        return self._position.get("step", self._batches())

    def result(self, fallback_s: float) -> dict[str, Any]:
        """The figures of ``result.json`` that come from the members.

        Args:
            fallback_s: how long students ran, for a rate when every loop took one batch.
        """
        samples = self._total("samples")
        rate = 0.0
        if self._first is not None and self._last[0] > self._first[0]:
            rate = (self._last[1] - self._first[1]) / (self._last[0] - self._first[0])
        else:
            rate = self._rate_by_loops() or (samples / fallback_s if fallback_s > 0 else 0.0)
        return {
            "steps": max(self.steps, self.checkpoint or 0),
            "epochs": max(self._position.get("epoch", 0), self._epochs()),
            "samples": int(samples),
            "samples_per_s": round(rate, 2),
            "skipped_samples": int(self._total("skipped")),
            "missed_samples": int(self._total("missed")),
            "left_out_samples": int(self._total("left_out")),
            **self.spikes,
            "found_samples": int(self._total("store_hits")),
            "coalesced_samples": int(self._total("coalesced")),
            "retracted_labels": int(self._total("retracted")),
            "doubtful_labels": int(self._total("doubtful")),
            "starved_s": round(self._most("starved_s"), 3),
            "backpressure_s": round(self._most("backpressure_s"), 3),
            "worker_s": round(self._worker_s, 3),
            "metrics": dict(self.metrics),
            "teachers": dict(self.teachers),
            "tasks": {
                key: int(self._total(key)) for key in ("done", "requeued", "duplicates", "hedged", "failed")
            },
            "student_restarts": max((len(seen) for seen in self._processes.values()), default=1) - 1,
        }

    def _record(self, record: Event | Report) -> EventLine | None:
        if record.reporter:
            if record.seq <= self._numbered.get(record.reporter, 0):
                return None
            self._numbered[record.reporter] = record.seq
        if isinstance(record, Report):
            return self._report(record)
        self._member_event(record)
        self.spikes["spikes"] += record.event == "loss_spiked"
        self.spikes["rollbacks"] += record.event == "rolled_back"
        step = _number(record.fields.get("step"))
        if record.event in ("checkpoint_saved", "checkpoint_restored") and step is not None:
            self.checkpoint = int(step)
            if record.event == "checkpoint_saved":
                self._position["step"] = max(int(step), self._position.get("step", 0))
        # A field of the reporter's takes the place of neither the time nor the name.
        return {**record.fields, "t": record.t, "event": record.event}

    def _report(self, report: Report) -> EventLine:
        if report.rank == 0:
            for key, value in report.values.items():
                if key not in POSITION_KEYS:
                    self.metrics[key] = value
                elif (position := _number(value)) is not None:
                    self._position[key] = int(position)
        return {**report.values, "t": report.t, "event": "report", "rank": report.rank}

    def _member_event(self, event: Event) -> None:
        member_id = str(event.fields.get("id", ""))
        role, _, what = event.event.partition("_")
        if role == "student" and what in ("left", "lost"):
            self._note_stats(member_id, event.fields)
        if role not in ("teacher", "student") or what not in ("joined", "left", "lost"):
            return
        counted = role == "teacher" and not self.frozen
        if what == "joined":
            if counted and member_id not in self._present:
                self.teachers["joined"] += 1
            self._present.add(member_id)
        elif member_id in self._present:
            self._present.discard(member_id)
            self.teachers[what] += counted

    def _note_stats(self, member_id: str, stats: Mapping[str, Scalar]) -> None:
        held = self._stats.setdefault(member_id, {})
        for key, value in stats.items():
            if (figure := _number(value)) is not None:
                held[key] = max(held.get(key, 0), figure)  # they only grow; answers may overlap

    def _note_rate(self, now: float) -> None:
        samples = self._total("samples")
        if samples <= 0:
            return
        if self._first is None:
            self._first = self._last = (now, samples)
        if samples > self._last[1]:
            self._last = (now, samples)
        if not self._window or self._window[-1][1:] != (samples, self.steps):
            self._window.append((now, samples, self.steps))

    def _batches(self) -> int:
        return int(self._most("batches"))

    def _rate_by_loops(self) -> float:
        """What all loops together took a second, each after its first batch."""
        rate = 0.0
        for stats in self._stats.values():
            samples, batches, loop_s = (stats.get(key, 0.0) for key in ("samples", "batches", "loop_s"))
            if batches > 1 and loop_s > 0:
                rate += samples * (1 - 1 / batches) / loop_s
        return rate

    def _epochs(self) -> int:
        training = (stats for id, stats in self._stats.items() if id not in self._evaluating)
        return int(max((stats.get("epoch", 0) for stats in training), default=0))

    def _total(self, key: str) -> float:
        return sum(stats.get(key, 0) for stats in self._stats.values())

    def _most(self, key: str) -> float:
        return max(self._values(key), default=0.0)

    def _values(self, key: str) -> Iterable[float]:
        return (stats.get(key, 0.0) for stats in self._stats.values())


def _number(value: Scalar) -> int | float | None:
    """The figure in what a member sent, or None: only finite numbers of sane size are figures."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) < LARGEST else None  # NaN is less than nothing
