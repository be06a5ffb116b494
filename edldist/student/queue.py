"""The label queue: what is pending, leased, done and next to deliver. Pure: no tensors, no sockets.

Every batch is offered in the data loader's order and delivered in that order, once. For each
teacher its samples are cut into tasks at the moment a worker pulls::

    pending --lease--> leased --complete--> done        (all tasks of the head batch: delivered)
       ^                 |
       +---- fail, lose, expire, give back: to the *front*, in batch order

Blame. A task that a model *failed* on has one more failed attempt. A task whose worker was *lost*
(death, silence, deadline) is only suspected, because workers die for other reasons; after two
losses it is leased alone, and a third loss is an accusation: unless one of those workers turns out to
be alive within ``verdict_s`` (its connection had broken, see ``forgive``), it counts as proof.
``max_attempts`` failed attempts make it poison. A worker that drains and gives a task back blames nobody.

Not promised here: time. Callers pass ``now`` (monotonic seconds) and act on what is returned.
Not thread-safe: the student's service guards it with one lock.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edldist.errors import ConfigError

__all__ = ["Flow", "Grant", "LabelQueue", "Lost", "Poison"]

_SOLO_AFTER_LOSSES = 2
_DEADLINE_FACTOR = 10.0
_MOST_FORGIVEN = 10


@dataclass(frozen=True, slots=True)
class Flow:
    """Bounds of the queue.

    Attributes:
        low_watermark, high_watermark: batches that are labelled or wait for a worker. Reading the
            data loader pauses at the high one and resumes at the low one.
        max_bytes: bound on inputs and labels of all open batches; one batch is always admitted.
        task_size: cut every batch at multiples of this, whoever pulls. None: cut to each pull.
        fixed: deterministic cuts (``task_size``, or whole batches), each alone in its forward
            pass; leased batches count towards the high watermark, so that reading ahead depends
            on consumption alone.
        max_attempts: failed attempts that make a task poison.
        verdict_s: how long a task that seems to kill workers waits for one of them to prove alive.
        first_deadline_s: age at which a worker's first lease is written off. Later deadlines are
            learnt: ten times the worker's own latency, at least ``min_deadline_s``.
    """

    low_watermark: int = 2
    high_watermark: int = 8
    max_bytes: int = 4 << 30
    task_size: int | None = None
    fixed: bool = False
    max_attempts: int = 3
    verdict_s: float = 3.0
    first_deadline_s: float = 300.0
    min_deadline_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("high_watermark", "max_bytes", "max_attempts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least 1")
        if not 0 <= self.low_watermark < self.high_watermark:
            raise ConfigError(
                f"low_watermark={self.low_watermark}, high_watermark={self.high_watermark}: "
                "needs 0 <= low_watermark < high_watermark"
            )
        if self.task_size is not None and self.task_size < 1:
            raise ConfigError(f"task_size={self.task_size}: must be at least 1 sample")
        for name in ("first_deadline_s", "min_deadline_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}={getattr(self, name)}: must be above 0 seconds")


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease as the service sends it: samples ``start`` to ``stop`` of a batch, for one teacher."""

    lease: int
    teacher: str
    batch: int
    start: int
    stop: int
    alone: bool


@dataclass(frozen=True, slots=True)
class Poison:
    """A task that no attempt could label."""

    teacher: str
    batch: int
    start: int
    stop: int
    attempts: list[str]


@dataclass(frozen=True, slots=True)
class Lost:
    """What a lost worker, a failure or a deadline sent back to the front."""

    requeued: int
    poison: list[Poison]


class _Loss(NamedTuple):
    """A worker was lost while it held a task; ``alone``: that one only."""

    worker: str
    text: str
    alone: bool


@dataclass(slots=True, eq=False)
class _Task:
    teacher: str
    batch: int
    start: int
    stop: int
    failures: list[str] = field(default_factory=list)
    failed_by: set[str] = field(default_factory=set)
    losses: list[_Loss] = field(default_factory=list)
    verdict_at: float | None = None  # accused until then
    forgiven: int = 0
    leases: set[int] = field(default_factory=set)

    @property
    def samples(self) -> int:
        return self.stop - self.start

    @property
    def solo(self) -> bool:
        """Whether it is suspected so much that it is leased alone."""
        return len(self.losses) >= _SOLO_AFTER_LOSSES

    @property
    def attempts(self) -> list[str]:
        """What counts as failed attempts."""
        proven = any(loss.alone for loss in self.losses)
        return self.failures + ([loss.text for loss in self.losses] if proven else [])

    @property
    def place(self) -> tuple[int, int]:
        return (self.batch, self.start)


@dataclass(slots=True)
class _Lease:
    task: _Task
    worker: str
    since: float
    deadline: float
    solo: bool


@dataclass(slots=True)
class _Batch:
    samples: int
    nbytes: int
    unlabelled: int  # samples x teachers that have no labels yet
    uncut: int  # teachers for whom some of it is not cut yet


@dataclass(slots=True)
class _Track:
    """The queue of one teacher."""

    fresh: deque[list[int]] = field(default_factory=deque)  # [batch, next start]
    returned: list[_Task] = field(default_factory=list)  # ordered by place
    draining: str | None = None  # the worker that is being emptied for a solo task


@dataclass(slots=True)
class _Worker:
    teacher: str
    leases: dict[int, _Lease] = field(default_factory=dict)
    latency_s: float | None = None


class LabelQueue:
    """All delivery state of one student rank."""

    def __init__(self, teachers: Sequence[str], flow: Flow | None = None, first_lease: int = 1) -> None:
        """Make an empty queue.

        Args:
            teachers: names whose labels every batch needs; at least one, no two alike.
            flow: bounds.
            first_lease: leases count up from here; a random start tells the leases of two lives
                of a student apart.
        """
        if not teachers or len(set(teachers)) != len(teachers):
            raise ConfigError(f"teacher={list(teachers)!r}: needs one or more different names")
        self.flow = flow or Flow()
        self._tracks = {teacher: _Track() for teacher in teachers}
        self._batches: dict[int, _Batch] = {}
        self._leases: dict[int, _Lease] = {}
        self._workers: dict[str, _Worker] = {}
        self._lease_ids = itertools.count(first_lease)
        self._next_batch = 0
        self._nbytes = 0
        self._filling = True
        self.done = 0
        self.failed = 0
        self.requeued = 0
        self.duplicates = 0
        self.hedged = 0

    # --- the data loader's side -------------------------------------------------------------

    @property
    def open_batches(self) -> int:
        return len(self._batches)

    @property
    def head(self) -> int | None:
        """Number of the batch that is delivered next, if there is one."""
        return next(iter(self._batches), None)

    @property
    def labelled_batches(self) -> int:
        return sum(batch.unlabelled == 0 for batch in self._batches.values())

    @property
    def deliverable_batches(self) -> int:
        """Labelled batches from the head on: what the loop gets before it meets one that lacks labels."""
        return sum(1 for _ in itertools.takewhile(lambda b: b.unlabelled == 0, self._batches.values()))

    @property
    def nbytes(self) -> int:
        return self._nbytes

    def wants_batch(self) -> bool:
        """Whether the data loader should be read now (see ``Flow``)."""
        if not self._batches:
            return True
        if self._nbytes >= self.flow.max_bytes:
            return False
        level = len(self._batches) if self.flow.fixed else self._level()
        if level >= self.flow.high_watermark:
            self._filling = False
        elif level <= self.flow.low_watermark:
            self._filling = True
        return self._filling

    def offer(self, samples: int, nbytes: int) -> int:
        """Append a batch and return its number. An empty batch is done at once."""
        number = self._next_batch
        self._next_batch += 1
        tracks = self._tracks if samples else {}
        self._batches[number] = _Batch(samples, nbytes, samples * len(tracks), len(tracks))
        self._nbytes += nbytes
        for track in tracks.values():
            track.fresh.append([number, 0])
        return number

    def grow(self, batch: int, nbytes: int) -> None:
        """Account for the label memory of a batch."""
        self._batches[batch].nbytes += nbytes
        self._nbytes += nbytes

    def ready(self) -> bool:
        """Whether the next batch in order has all its labels."""
        head = next(iter(self._batches.values()), None)
        return head is not None and head.unlabelled == 0

    def abandon(self, batch: int) -> None:
        """Give up labelling a batch: it counts as labelled, late answers as duplicates."""
        for number in [n for n, lease in self._leases.items() if lease.task.batch == batch]:
            self._close(number)
        for track in self._tracks.values():
            track.fresh = deque(entry for entry in track.fresh if entry[0] != batch)
            track.returned = [task for task in track.returned if task.batch != batch]
        self._batches[batch].unlabelled = self._batches[batch].uncut = 0

    def deliver(self) -> int:
        """Take the head batch out and return its number; only when ``ready``."""
        number = next(iter(self._batches))
        batch = self._batches.pop(number)
        assert batch.unlabelled == 0
        self._nbytes -= batch.nbytes
        return number

    def clear(self) -> None:
        """Forget every batch and lease (the loop was left). Late answers count as duplicates."""
        self._batches.clear()
        self._leases.clear()
        self._nbytes = 0
        self._filling = True
        for worker in self._workers.values():
            worker.leases.clear()
        for track in self._tracks.values():
            track.fresh.clear()
            track.returned.clear()
            track.draining = None

    # --- the workers' side --------------------------------------------------------------------

    def join(self, worker: str, teacher: str) -> None:
        """A worker of a teacher may pull from now on."""
        self._workers.setdefault(worker, _Worker(teacher))

    def workers(self, teacher: str | None = None) -> list[str]:
        return [name for name, worker in self._workers.items() if teacher in (None, worker.teacher)]

    def has_work(self, worker: str) -> bool:
        """Whether a pull of this worker would be granted something now."""
        me = self._workers[worker]
        track = self._tracks[me.teacher]
        if any(lease.solo for lease in me.leases.values()):
            return False
        if self._solo_waiting(track) is not None:
            if not me.leases:
                return True
            if track.draining in (None, worker):
                return False
        return bool(track.fresh) or any(not t.solo and self._suits(t, worker) for t in track.returned)

    def lease(self, worker: str, samples: int, now: float) -> list[Grant]:
        """Grant up to ``samples`` samples to a worker: tasks that came back first, then fresh cuts.

        With a fixed ``task_size``, at least one task is granted if there is any. An empty list
        means that there is nothing for this worker now.
        """
        me = self._workers[worker]
        track = self._tracks[me.teacher]
        if any(lease.solo for lease in me.leases.values()):
            return []
        solo = self._solo_waiting(track)
        if solo is not None:
            if not me.leases:
                track.draining = None
                track.returned.remove(solo)
                return [self._grant(solo, worker, me, now, solo=True)]
            track.draining = track.draining or worker
            if track.draining == worker:
                return []
        grants: list[Grant] = []
        room = samples
        while room > 0:
            task = self._take(track, me.teacher, worker, room, first=not grants)
            if task is None:
                break
            room -= task.samples
            grants.append(self._grant(task, worker, me, now, solo=False))
        return grants

    def hedge(self, worker: str, samples: int, now: float, older_than_s: float) -> Grant | None:
        """Lease the head batch's oldest open task a second time, to a worker with nothing to do.

        Only when it is older than ``older_than_s`` and than three times the idle worker's own
        latency, has no second lease yet, and fits into ``samples``. The first answer wins.
        """
        task = self._hedgeable(worker, samples, now, older_than_s)
        if task is None:
            return None
        self.hedged += 1
        return self._grant(task, worker, self._workers[worker], now, solo=False)

    def can_hedge(self, worker: str, samples: int, now: float, older_than_s: float) -> bool:
        """Whether ``hedge`` would find a task."""
        return self._hedgeable(worker, samples, now, older_than_s) is not None

    def find(self, lease: int, worker: str) -> Grant | None:
        """The open lease of a worker, or None: it was answered, written off, or never was.

        The None case is an answer to drop, and is counted as a duplicate.
        """
        held = self._leases.get(lease)
        if held is None or held.worker != worker:
            self.duplicates += 1
            return None
        task = held.task
        return Grant(lease, task.teacher, task.batch, task.start, task.stop, alone=held.solo)

    def holds(self, lease: int) -> bool:
        """Whether a lease is still open."""
        return lease in self._leases

    def complete(self, lease: int, now: float) -> bool:
        """The labels of an open lease are in place; True when its batch has all labels now."""
        held = self._leases[lease]
        task = held.task
        worker = self._workers[held.worker]
        took_s = now - held.since
        worker.latency_s = took_s if worker.latency_s is None else 0.8 * worker.latency_s + 0.2 * took_s
        for other in list(task.leases):
            self._close(other)
        self.done += 1
        batch = self._batches[task.batch]
        batch.unlabelled -= task.samples
        return batch.unlabelled == 0

    def fail(self, lease: int, error: str) -> Lost:
        """The worker's model raised on an open lease."""
        held = self._close(lease)
        self.failed += 1
        held.task.failures.append(error)
        held.task.failed_by.add(held.worker)
        return self._put_back([held.task])

    def give_back(self, leases: Sequence[int], worker: str) -> Lost:
        """A draining worker returns leases that it has not begun; nobody is to blame."""
        held = self._workers[worker].leases
        mine = [lease for lease in dict.fromkeys(leases) if lease in held]
        return self._put_back([self._close(lease).task for lease in mine])

    def leases_of(self, worker: str) -> list[int]:
        """The open leases of a worker, oldest first."""
        return list(self._workers[worker].leases)

    def forgive(self, worker: str) -> None:
        """A lost worker turns out to be the same live process: no task has killed it."""
        leased = {id(lease.task): lease.task for lease in self._leases.values()}
        returned = [task for track in self._tracks.values() for task in track.returned]
        for task in [*leased.values(), *returned]:
            # Its last loss only: a process before it under the same name may well have died.
            last = next((loss for loss in reversed(task.losses) if loss.worker == worker), None)
            if last is not None and task.forgiven < _MOST_FORGIVEN:
                task.losses.remove(last)
                task.forgiven += 1
                if len(task.attempts) < self.flow.max_attempts:
                    task.verdict_at = None

    def verdicts(self, now: float) -> list[Poison]:
        """Tasks that stay accused when their time is up."""
        poison = []
        for track in self._tracks.values():
            for task in [t for t in track.returned if t.verdict_at is not None and now >= t.verdict_at]:
                track.returned.remove(task)
                poison.append(Poison(task.teacher, task.batch, task.start, task.stop, task.attempts))
        return poison

    def lose(self, worker: str, reason: str, now: float) -> Lost:
        """A worker is gone: its leases go back to the front, suspected."""
        gone = self._workers.pop(worker)
        for track in self._tracks.values():
            if track.draining == worker:
                track.draining = None
        return self._write_off(list(gone.leases), worker, reason, gone, now)

    def leave(self, worker: str) -> Lost:
        """A worker said goodbye: its leases go back, unsuspected."""
        back = self.give_back(list(self._workers[worker].leases), worker)
        self.lose(worker, "left", 0.0)
        return back

    def overdue(self, now: float) -> dict[str, list[int]]:
        """Leases past their deadline, by worker."""
        late: dict[str, list[int]] = {}
        for number, lease in self._leases.items():
            if now > lease.deadline:
                late.setdefault(lease.worker, []).append(number)
        return late

    def expire(self, worker: str, leases: Sequence[int], reason: str, now: float) -> Lost:
        """Write leases off that are past their deadline; the worker stays."""
        return self._write_off(leases, worker, reason, self._workers[worker], now)

    # --- inside -------------------------------------------------------------------------------

    def _level(self) -> int:
        """Batches that are labelled, or still have samples that nobody has leased."""
        returned = {task.batch for track in self._tracks.values() for task in track.returned}
        return sum(
            batch.unlabelled == 0 or batch.uncut > 0 or number in returned
            for number, batch in self._batches.items()
        )

    def _fixed_cut(self) -> bool:
        return self.flow.fixed or self.flow.task_size is not None

    def _hedgeable(self, worker: str, samples: int, now: float, older_than_s: float) -> _Task | None:
        me = self._workers[worker]
        if any(lease.solo for lease in me.leases.values()):
            return None
        age_s = max(older_than_s, 3 * (me.latency_s or 0.0))
        candidates = [
            lease
            for lease in self._leases.values()
            if lease.task.batch == self.head
            and lease.task.teacher == me.teacher
            and lease.worker != worker
            and len(lease.task.leases) == 1
            and not lease.task.solo
            and (lease.task.samples <= samples or self._fixed_cut())
            and now - lease.since > age_s
        ]
        return min(candidates, key=lambda lease: lease.since).task if candidates else None

    def _solo_waiting(self, track: _Track) -> _Task | None:
        return next((task for task in track.returned if task.solo and task.verdict_at is None), None)

    def _suits(self, task: _Task, worker: str) -> bool:
        """A worker that failed a task gets it again only if every other one failed it too."""
        if worker not in task.failed_by:
            return True
        return all(
            name in task.failed_by for name, other in self._workers.items() if other.teacher == task.teacher
        )

    def _take(self, track: _Track, teacher: str, worker: str, room: int, first: bool) -> _Task | None:
        for index, task in enumerate(track.returned):
            if task.solo or not self._suits(task, worker):
                continue
            if task.samples <= room or (first and self._fixed_cut()):
                return track.returned.pop(index)
            if self._fixed_cut():
                return None
            track.returned[index] = _Task(
                *(teacher, task.batch, task.start + room, task.stop),
                failures=list(task.failures),
                failed_by=set(task.failed_by),
                losses=list(task.losses),
                forgiven=task.forgiven,
            )
            task.stop = task.start + room
            return task
        if not track.fresh:
            return None
        number, start = head = track.fresh[0]
        batch = self._batches[number]
        size = batch.samples - start
        if self.flow.task_size is not None:
            size = min(size, self.flow.task_size)
        if self._fixed_cut():
            if size > room and not first:
                return None
        else:
            size = min(size, room)
        head[1] = start + size
        if head[1] == batch.samples:
            track.fresh.popleft()
            batch.uncut -= 1
        return _Task(teacher, number, start, start + size)

    def _grant(self, task: _Task, worker: str, me: _Worker, now: float, *, solo: bool) -> Grant:
        number = next(self._lease_ids)
        allowed_s = self.flow.first_deadline_s
        if me.latency_s is not None:
            allowed_s = max(self.flow.min_deadline_s, _DEADLINE_FACTOR * me.latency_s)
        self._leases[number] = me.leases[number] = _Lease(task, worker, now, now + allowed_s, solo)
        task.leases.add(number)
        alone = solo or self.flow.fixed
        return Grant(number, task.teacher, task.batch, task.start, task.stop, alone)

    def _close(self, lease: int) -> _Lease:
        held = self._leases.pop(lease)
        held.task.leases.discard(lease)
        worker = self._workers.get(held.worker)
        if worker is not None:
            worker.leases.pop(lease, None)
        return held

    def _write_off(self, leases: Sequence[int], name: str, reason: str, worker: _Worker, now: float) -> Lost:
        tasks = []
        for number in leases:
            held = self._close(number)
            worker.leases.pop(number, None)
            task = held.task
            what = "only this task" if held.solo else "this task"
            text = f"worker {name} was lost while it held {what}: {reason}"
            task.losses.append(_Loss(name, text, held.solo))
            if len(task.attempts) >= self.flow.max_attempts:
                task.verdict_at = now + self.flow.verdict_s
            tasks.append(task)
        return self._put_back(tasks)

    def _put_back(self, tasks: Sequence[_Task]) -> Lost:
        poison = []
        requeued = 0
        for task in tasks:
            if task.leases:
                continue  # a second lease is still open
            if len(task.failures) >= self.flow.max_attempts:
                poison.append(Poison(task.teacher, task.batch, task.start, task.stop, task.failures))
                continue
            requeued += 1
            track = self._tracks[task.teacher]
            index = next(
                (i for i, t in enumerate(track.returned) if t.place > task.place), len(track.returned)
            )
            track.returned.insert(index, task)
        self.requeued += requeued
        return Lost(requeued, poison)
