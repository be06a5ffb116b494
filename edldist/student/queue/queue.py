"""The label queue: what is pending, leased, done and next to deliver. Pure: no tensors, no sockets.

Every batch is offered in the data loader's order and delivered in that order, once. For each
teacher its samples are cut into tasks at the moment a worker pulls::

    pending --lease--> leased --complete--> done        (all tasks of the head batch: delivered)
       ^                 |
       +---- fail, lose, expire, give back: to the *front*, in batch order

Blame. A task that a model *failed* on has one more failed attempt. A task whose worker was *lost*
(death, silence, deadline) is only suspected, because workers die for other reasons; after two
suspicions it is leased alone, and a third one is an accusation: unless one of those workers turns out to
be alive within ``verdict_s`` (its connection had broken, see ``forgive``), it counts as proof.
``max_attempts`` failed attempts make it poison. A worker that drains and gives a task back blames nobody.

Not promised here: time. Callers pass ``now`` (monotonic seconds) and act on what is returned.
Not thread-safe: the student's service guards it with one lock.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from edldist.errors import ConfigError
from edldist.student.queue.batches import Batches
from edldist.student.queue.flow import Flow
from edldist.student.queue.task import Suspicion, Task
from edldist.student.queue.track import Track

__all__ = ["Grant", "LabelQueue", "Poison", "Returned"]

_DEADLINE_FACTOR = 10.0


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
class Returned:
    """What a lost worker, a failure or a deadline sent back to the front."""

    requeued: int
    poison: list[Poison]


@dataclass(slots=True)
class _Lease:
    task: Task
    worker: str
    since: float
    deadline: float
    alone: bool


@dataclass(slots=True)
class _Worker:
    teacher: str
    leases: dict[int, _Lease] = field(default_factory=dict)
    latency_s: float | None = None
    quarantined: bool = False  # it gets no work until it asks again


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
        self._batches = Batches(self.flow)
        self._tracks = {teacher: Track(teacher, self.flow, self._batches.waits) for teacher in teachers}
        self._leases: dict[int, _Lease] = {}
        self._workers: dict[str, _Worker] = {}
        self._lease_ids = itertools.count(first_lease)
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
        return self._batches.head

    @property
    def labelled_batches(self) -> int:
        return self._batches.labelled

    @property
    def deliverable_batches(self) -> int:
        """Labelled batches from the head on: what the loop gets before it meets one that lacks labels."""
        return self._batches.deliverable

    @property
    def nbytes(self) -> int:
        return self._batches.nbytes

    def wants_batch(self) -> bool:
        """Whether the data loader should be read now (see ``Flow``)."""
        return self._batches.wanted()

    def offer(self, samples: int, nbytes: int) -> int:
        """Append a batch of so many bytes of inputs and return its number. An empty batch is done at once."""
        tracks = self._tracks if samples else {}
        number = self._batches.offer(samples, samples * len(tracks), nbytes)
        for track in tracks.values():
            track.offer(number, samples)
        return number

    def grow(self, number: int, nbytes: int) -> None:
        """Account for the label memory of a batch."""
        self._batches.grow(number, nbytes)

    def ready(self) -> bool:
        """Whether the next batch in order has all its labels."""
        return self._batches.deliverable > 0

    def abandon(self, batch: int) -> None:
        """Give up labelling a batch: it counts as labelled, late answers as duplicates."""
        for number in [n for n, lease in self._leases.items() if lease.task.batch == batch]:
            self._close(number)
        for track in self._tracks.values():
            track.forget(batch)
        self._batches.abandon(batch)

    def deliver(self) -> int:
        """Take the head batch out and return its number; only when ``ready``."""
        return self._batches.deliver()

    def clear(self) -> None:
        """Forget every batch and lease (the loop was left). Late answers count as duplicates."""
        self._batches.clear()
        self._leases.clear()
        for worker in self._workers.values():
            worker.leases.clear()
        for track in self._tracks.values():
            track.clear()

    # --- the workers' side --------------------------------------------------------------------

    def join(self, worker: str, teacher: str) -> None:
        """A worker of a teacher may pull from now on."""
        self._workers.setdefault(worker, _Worker(teacher))

    def quarantine(self, worker: str) -> None:
        """A worker gets no work until its next ``lease``: nothing is kept for it."""
        self._workers[worker].quarantined = True

    def has_work(self, worker: str, now: float) -> bool:
        """Whether a pull of this worker would be granted something now."""
        me = self._workers[worker]
        track = self._tracks[me.teacher]
        if any(lease.alone for lease in me.leases.values()):
            return False
        if track.next_alone() is not None:
            if not me.leases:
                return True
            if track.draining in (None, worker):
                return False
        return track.has_work(lambda task: self._suits(task, worker, now))

    def lease(self, worker: str, samples: int, now: float) -> list[Grant]:
        """Grant up to ``samples`` samples to a worker: tasks that came back first, then fresh cuts.

        With a fixed ``task_size``, at least one task is granted if there is any. An empty list
        means that there is nothing for this worker now.
        """
        me = self._workers[worker]
        me.quarantined = False
        track = self._tracks[me.teacher]
        if any(lease.alone for lease in me.leases.values()):
            return []
        alone = track.next_alone()
        if alone is not None:
            if not me.leases:
                track.draining = None
                track.remove(alone)
                return [self._grant(alone, worker, me, now, alone=True)]
            track.draining = track.draining or worker
            if track.draining == worker:
                return []
        grants: list[Grant] = []
        room = samples
        while room > 0:
            task = track.take(room, not grants, lambda task: self._suits(task, worker, now))
            if task is None:
                break
            room -= task.samples
            grants.append(self._grant(task, worker, me, now, alone=False))
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
        return self._grant(task, worker, self._workers[worker], now, alone=False)

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
        return Grant(lease, task.teacher, task.batch, task.start, task.stop, alone=held.alone)

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
        return self._batches.settle(task.batch, task.samples)

    def fail(self, lease: int, error: str, now: float) -> Returned:
        """The worker's model raised on an open lease."""
        held = self._close(lease)
        self.failed += 1
        held.task.failures.append(error)
        held.task.failed_by.add(held.worker)
        held.task.failed_at = now
        return self._put_back([held.task])

    def give_back(self, leases: Sequence[int], worker: str) -> Returned:
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
        returned = [task for track in self._tracks.values() for task in track]
        for task in [*leased.values(), *returned]:
            task.forgive(worker, self.flow.max_attempts)

    def verdicts(self, now: float) -> list[Poison]:
        """Tasks that stay accused when their time is up."""
        poison = []
        for track in self._tracks.values():
            for task in [t for t in track if t.verdict_at is not None and now >= t.verdict_at]:
                track.remove(task)
                poison.append(Poison(task.teacher, task.batch, task.start, task.stop, task.attempts))
        return poison

    def lose(self, worker: str, reason: str, now: float) -> Returned:
        """A worker is gone: its leases go back to the front, suspected."""
        gone = self._workers.pop(worker)
        for track in self._tracks.values():
            if track.draining == worker:
                track.draining = None
        return self._write_off(list(gone.leases), worker, reason, gone, now)

    def leave(self, worker: str) -> Returned:
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

    def expire(self, worker: str, leases: Sequence[int], reason: str, now: float) -> Returned:
        """Write leases off that are past their deadline; the worker stays."""
        return self._write_off(leases, worker, reason, self._workers[worker], now)

    # --- inside -------------------------------------------------------------------------------

    def _hedgeable(self, worker: str, samples: int, now: float, older_than_s: float) -> Task | None:
        me = self._workers[worker]
        if any(lease.alone for lease in me.leases.values()):
            return None
        age_s = max(older_than_s, 3 * (me.latency_s or 0.0))
        candidates = [
            lease
            for lease in self._leases.values()
            if lease.task.batch == self.head
            and lease.task.teacher == me.teacher
            and lease.worker != worker
            and len(lease.task.leases) == 1
            and not lease.task.alone
            and (lease.task.samples <= samples or self.flow.cuts_fixed)
            and now - lease.since > age_s
        ]
        return min(candidates, key=lambda lease: lease.since).task if candidates else None

    def _suits(self, task: Task, worker: str, now: float) -> bool:
        """A worker that failed a task gets it again only if no other one can be expected to take it.

        One that did not ask for it in the time that it has for a lease may never ask again.
        """
        if worker not in task.failed_by:
            return True
        return all(
            name in task.failed_by or other.quarantined or now > task.failed_at + self._allowed_s(other)
            for name, other in self._workers.items()
            if other.teacher == task.teacher
        )

    def _allowed_s(self, worker: _Worker) -> float:
        """The age at which a lease of the worker would be written off."""
        if worker.latency_s is None:
            return self.flow.first_deadline_s
        return max(self.flow.min_deadline_s, _DEADLINE_FACTOR * worker.latency_s)

    def _grant(self, task: Task, worker: str, me: _Worker, now: float, *, alone: bool) -> Grant:
        number = next(self._lease_ids)
        deadline = now + self._allowed_s(me)
        self._leases[number] = me.leases[number] = _Lease(task, worker, now, deadline, alone)
        task.leases.add(number)
        alone = alone or self.flow.fixed
        return Grant(number, task.teacher, task.batch, task.start, task.stop, alone)

    def _close(self, lease: int) -> _Lease:
        held = self._leases.pop(lease)
        held.task.leases.discard(lease)
        worker = self._workers.get(held.worker)
        if worker is not None:
            worker.leases.pop(lease, None)
        return held

    def _write_off(
        self, leases: Sequence[int], name: str, reason: str, worker: _Worker, now: float
    ) -> Returned:
        tasks = []
        for number in leases:
            held = self._close(number)
            worker.leases.pop(number, None)
            task = held.task
            what = "only this task" if held.alone else "this task"
            text = f"worker {name} was lost while it held {what}: {reason}"
            task.suspicions.append(Suspicion(name, text, held.alone))
            if len(task.attempts) >= self.flow.max_attempts:
                task.verdict_at = now + self.flow.verdict_s
            tasks.append(task)
        return self._put_back(tasks)

    def _put_back(self, tasks: Sequence[Task]) -> Returned:
        poison = []
        requeued = 0
        for task in tasks:
            if task.leases:
                continue  # a second lease is still open
            if len(task.failures) >= self.flow.max_attempts:
                poison.append(Poison(task.teacher, task.batch, task.start, task.stop, task.failures))
                continue
            requeued += 1
            self._tracks[task.teacher].put_back(task)
        self.requeued += requeued
        return Returned(requeued, poison)
