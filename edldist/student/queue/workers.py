"""The workers of a label queue, the leases that they hold, and what was learnt of them. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from edldist.observe.stages import StageClock
from edldist.student.queue.flow import Flow
from edldist.student.queue.outcomes import Grant
from edldist.student.queue.task import HeldLease, Task

__all__ = ["Worker", "Workers"]

_DEADLINE_FACTOR = 10.0
_MOST_BEATEN = 64


@dataclass(slots=True, eq=False)
class Worker:
    """A worker that may pull.

    Attributes:
        teacher: whose labels it makes.
        called: its name, for people.
        leases: those that it holds, by number, the oldest first.
        latency_s: how long its answers take, a moving average; None before the first.
        quarantined: it keeps failing, and gets nothing until it is let ask again.
        stuck: a lease of it is overdue, and it has answered nothing since: it gets nothing until it does.
            Its device may hang for ever while its heartbeat goes on.
        beaten: leases whose tasks others have labelled first, and since when it held them.
        answering: how long the answers of all workers take.
    """

    teacher: str
    called: str
    leases: dict[int, HeldLease] = field(default_factory=dict)
    latency_s: float | None = None
    quarantined: bool = False
    stuck: bool = False
    beaten: dict[int, float] = field(default_factory=dict)
    answering: StageClock = field(default_factory=StageClock)

    @property
    def free(self) -> bool:
        """Whether it may get anything: it is well, and holds no task that must not have company."""
        if self.stuck or self.quarantined:
            return False
        # Invariant: who holds such a task holds nothing else.
        return len(self.leases) != 1 or not next(iter(self.leases.values())).alone

    def allowed_s(self, flow: Flow) -> float:
        """The age at which a lease of it is overdue."""
        if self.latency_s is None:
            return flow.first_deadline_s
        return max(flow.min_deadline_s, _DEADLINE_FACTOR * self.latency_s)

    def took(self, seconds: float) -> None:
        """Learn from an answer."""
        self.answering.took(seconds)
        known_s = self.latency_s
        self.latency_s = seconds if known_s is None else 0.8 * known_s + 0.2 * seconds

    def pass_deadlines(self, flow: Flow, now: float) -> list[HeldLease]:
        """Its leases that are overdue since now; if there are any, it is stuck."""
        late = []
        allowed_s = self.allowed_s(flow)
        for lease in self.leases.values():
            if lease.overdue_at is not None:
                continue
            if now - lease.since <= allowed_s:
                break  # those behind it are younger
            lease.overdue_at = now
            late.append(lease)
        self.stuck = self.stuck or bool(late)
        return late

    def beat(self, lease: HeldLease) -> None:
        """Others have labelled all of a lease that it holds."""
        self.beaten[lease.number] = lease.since
        if len(self.beaten) > _MOST_BEATEN:
            del self.beaten[next(iter(self.beaten))]

    def answered(self, lease: int, now: float) -> None:
        """It said something of a lease, whether that is still open or not: its device does not hang."""
        self.stuck = False
        since = self.beaten.pop(lease, None)
        if since is not None:
            self.took(now - since)


class Workers:
    """Who may pull, by name, and all leases that are open.

    Args:
        first_lease: leases count up from here.
    """

    def __init__(self, first_lease: int) -> None:
        self._workers: dict[str, Worker] = {}
        self.answering = StageClock()
        # Invariant: an open lease is in _leases, among those of its batch, and among those of its worker, who
        # is here; so is every lease of a worker, and every lease of a batch.
        self._leases: dict[int, HeldLease] = {}
        self._of_batch: dict[int, dict[int, HeldLease]] = {}
        self._numbers = itertools.count(first_lease)

    def __getitem__(self, name: str) -> Worker:
        return self._workers[name]

    def get(self, name: str) -> Worker | None:
        return self._workers.get(name)

    def __contains__(self, name: str) -> bool:
        return name in self._workers

    def __iter__(self) -> Iterator[tuple[str, Worker]]:
        return iter(self._workers.items())

    def has_fellows(self, name: str) -> bool:
        """Whether a worker's teacher has others."""
        teacher = self._workers[name].teacher
        return any(other != name and each.teacher == teacher for other, each in self._workers.items())

    def none_else_takes(self, task: Task, now: float, flow: Flow) -> bool:
        """Whether all workers of its teacher that have not failed on a task cannot be expected to take it.

        One that did not ask for it in the time that it has for a lease may never ask again.
        """
        return all(
            name in task.failed_by
            or other.quarantined
            or other.stuck
            or now > task.failed_at + other.allowed_s(flow)
            for name, other in self._workers.items()
            if other.teacher == task.teacher
        )

    def join(self, name: str, teacher: str, called: str) -> None:
        self._workers.setdefault(name, Worker(teacher, called, answering=self.answering))

    def part(self, name: str) -> None:
        """A worker is gone; it holds nothing any more."""
        gone = self._workers.pop(name)
        assert not gone.leases

    # --- leases -------------------------------------------------------------------------------------

    def find(self, number: int) -> HeldLease | None:
        return self._leases.get(number)

    def leases(self) -> Collection[HeldLease]:
        return self._leases.values()

    def leases_of_batch(self, batch: int | None) -> Collection[HeldLease]:
        """The oldest first."""
        held = None if batch is None else self._of_batch.get(batch)
        return () if held is None else held.values()

    def open(self, task: Task, name: str, now: float, *, alone: bool, own_pass: bool) -> Grant:
        """Lease a task to a worker.

        Args:
            alone: whether the worker holds nothing else meanwhile.
            own_pass: whether nothing else is in its forward pass.
        """
        number, start, stop = next(self._numbers), task.start, task.stop
        grant = Grant(number, task.teacher, task.batch, start, stop, task.cost, own_pass, ((start, stop),))
        worker = self._workers[name]
        lease = HeldLease(number, name, worker.called, [task], now, alone, grant)
        self._leases[number] = worker.leases[number] = task.leases[number] = lease
        of_batch = self._of_batch.get(task.batch)
        if of_batch is None:
            of_batch = self._of_batch[task.batch] = {}
        of_batch[number] = lease
        return grant

    def close(self, lease: HeldLease) -> None:
        """A lease ends, in whatever way; the tasks that it was open for stay on its list."""
        number = lease.number
        del self._leases[number]
        del self._workers[lease.worker].leases[number]
        batch = lease.tasks[0].batch
        of_batch = self._of_batch[batch]
        del of_batch[number]
        if not of_batch:
            del self._of_batch[batch]
        for task in lease.tasks:
            del task.leases[number]

    def overtake(self, task: Task) -> None:
        """A task has labels: whoever else holds it was beaten to it."""
        for lease in list(task.leases.values()):
            if len(lease.tasks) == 1:
                self.close(lease)
                self._workers[lease.worker].beat(lease)
            else:
                lease.tasks.remove(task)
                del task.leases[lease.number]

    def clear(self) -> None:
        """Forget all leases."""
        self._leases.clear()
        self._of_batch.clear()
        for worker in self._workers.values():
            worker.leases.clear()

    def validate(self) -> None:
        """Check the invariants."""
        assert all(number == lease.number for number, lease in self._leases.items())
        of_workers = [lease for worker in self._workers.values() for lease in worker.leases.values()]
        of_batches = [lease for leases in self._of_batch.values() for lease in leases.values()]
        for listed in (of_workers, of_batches):
            assert len(listed) == len(self._leases) and set(listed) == set(self._leases.values())
        assert all(self._of_batch.values())
        for held_by in (*(worker.leases for worker in self._workers.values()), *self._of_batch.values()):
            since = [lease.since for lease in held_by.values()]
            assert since == sorted(since)
        for name, worker in self._workers.items():
            held = list(worker.leases.values())
            assert all(lease.worker == name for lease in held)
            assert len(held) == 1 or not any(lease.alone for lease in held)
        for batch, leases in self._of_batch.items():
            assert all(task.batch == batch for lease in leases.values() for task in lease.tasks)
        for lease in self._leases.values():
            assert lease.tasks and all(task.leases.get(lease.number) is lease for task in lease.tasks)
            edges = [edge for task in lease.tasks for edge in (task.start, task.stop)]
            grant = lease.grant
            assert edges == sorted(edges) and grant.start <= edges[0] and edges[-1] <= grant.stop
            assert grant.lease == lease.number and grant.batch == lease.tasks[0].batch
            teacher = self._workers[lease.worker].teacher
            for task in lease.tasks:
                assert task.teacher == teacher and task.start < task.stop
                assert all(self._leases.get(number) is each for number, each in task.leases.items())
                assert len({each.worker for each in task.leases.values()}) == len(task.leases)
