"""A task of the label queue, its leases, and what speaks against it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from edldist.student.queue.outcomes import Grant
from edldist.student.queue.wanted import Wanted

__all__ = ["HeldLease", "Suspicion", "Task"]

_ALONE_AFTER = 2
_MOST_FORGIVEN = 10


class Suspicion(NamedTuple):
    """A worker was lost while it held a task.

    Attributes:
        worker: its name.
        text: what happened, for people.
        alone: whether it held nothing else.
        until: when this is taken for true, unless the worker has proven alive (monotonic seconds).
    """

    worker: str
    text: str
    alone: bool
    until: float


@dataclass(slots=True, eq=False)
class Task:
    """Samples ``start`` to ``stop`` of a batch, to be labelled by one teacher.

    ::

                     +------------- lease ------------> leased ---- labels -----> done
                     |                                 |  |  |                      ^
        waiting -----+                                 |  |  +- deadline            |
           ^  ^                                        |  |        |                |
           |  +-- failure, loss, given back -----------+  |        v                |
           |                                              |     overdue --labels----+
           +--------------- it is offered to others too --|--------+
           |                                              v
           +---- a worker proves alive ------------- withheld ---- in time ---> poison

    What speaks against it is of three kinds. A model that *failed* on it: one failed attempt. A worker that
    was *lost* with it (death, silence): a suspicion, because workers die for other reasons. A worker that
    lives and holds it *overdue*: nothing at all, until ``Flow.hang_s`` after the deadline. After two workers
    that were lost or are overdue with it, it is leased *alone*. When that one is lost or overdue too, and
    all together are ``Flow.max_attempts``, the task is *withheld*: nobody else gets it. It is poison when the
    time of every one of them is up: ``verdict_s`` to prove alive, ``hang_s`` to answer.

    A worker may say that each attempt at these samples would end as its own. It may be sick, and say so of
    anything; once another one says the same, or where its teacher has no other, the task is *hopeless*, which
    is poison at once.
    """

    teacher: str
    batch: int
    start: int
    stop: int
    wanted: Wanted  # what costs what
    failures: list[str] = field(default_factory=list)
    failed_by: list[str] = field(default_factory=list)  # who, for each of the failures
    failed_at: float = 0.0  # the last time
    certain_by: set[str] = field(default_factory=set)  # who said that each attempt would end so
    hopeless: bool = False  # so many said it that nobody else is tried
    suspicions: list[Suspicion] = field(default_factory=list)
    forgiven: int = 0
    waiting: bool = False  # in its track, to be leased
    # Invariant: the open leases that list this task, by number.
    leases: dict[int, HeldLease] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        return self.stop - self.start

    @property
    def cost(self) -> int:
        """In the units in which workers pull."""
        return self.wanted.cost(self.start, self.stop)

    @property
    def place(self) -> tuple[int, int]:
        return (self.batch, self.start)

    @property
    def which(self) -> tuple[str, int, int, int]:
        """Its samples, and whose they are."""
        return (self.teacher, self.batch, self.start, self.stop)

    @property
    def idle(self) -> bool:
        """Whether no worker holds it in time."""
        return all(lease.overdue_at is not None for lease in self.leases.values())

    @property
    def alone(self) -> bool:
        """Whether so many workers were lost, or are overdue with it, that it is leased alone."""
        if not self.leases:
            return len(self.suspicions) >= _ALONE_AFTER
        return len(self.suspicions) + len(self._overdue()) >= _ALONE_AFTER

    def attempts(self, now: float) -> list[str]:
        """What counts as failed attempts: failures, and losses and hangs if one worker held nothing else."""
        overdue = self._overdue()
        if not (any(one.alone for one in self.suspicions) or any(lease.alone for lease in overdue)):
            return list(self.failures)
        hangs = [
            f"worker {lease.called} has held {'only this task' if lease.alone else 'this task'} for "
            f"{now - lease.since:.0f} s without an answer, although it answers pings"
            for lease in overdue
        ]
        return [*self.failures, *(one.text for one in self.suspicions), *hangs]

    def verdict_at(self, hang_s: float) -> float:
        """When the time of everybody who was lost, or is overdue with it, is up."""
        hangs = [lease.overdue_at + hang_s for lease in self.leases.values() if lease.overdue_at is not None]
        return max([one.until for one in self.suspicions] + hangs, default=0.0)

    def fail(self, worker: str, error: str, now: float, witnesses: int) -> None:
        """A worker's model raised on it.

        Args:
            witnesses: how many workers have to say that each attempt would end so, if this one does; else 0.
        """
        self.failures.append(error)
        self.failed_by.append(worker)
        self.failed_at = now
        if witnesses:
            self.certain_by.add(worker)
            self.hopeless = len(self.certain_by) >= witnesses

    def forgive(self, worker: str) -> None:
        """A worker that was lost with this task is alive: that counts no more."""
        # Its last loss only: a process before it under the same name may well have died.
        last = next((one for one in reversed(self.suspicions) if one.worker == worker), None)
        if last is None or self.forgiven >= _MOST_FORGIVEN:
            return
        self.suspicions.remove(last)
        self.forgiven += 1

    def split(self, at: int) -> Task:
        """Keep the samples before ``at``; the rest as a task with the same past.

        Leases that are open for the whole are open for both.
        """
        rest = Task(
            *(self.teacher, self.batch, at, self.stop, self.wanted),
            failures=list(self.failures),
            failed_by=list(self.failed_by),
            failed_at=self.failed_at,
            certain_by=set(self.certain_by),
            suspicions=list(self.suspicions),
            forgiven=self.forgiven,
            leases=dict(self.leases),
        )
        for lease in self.leases.values():
            lease.tasks.insert(lease.tasks.index(self) + 1, rest)
        self.stop = at
        return rest

    def _overdue(self) -> list[HeldLease]:
        return [lease for lease in self.leases.values() if lease.overdue_at is not None]


@dataclass(slots=True, eq=False)
class HeldLease:
    """An open lease.

    Attributes:
        number: told to the worker.
        worker: who holds it.
        called: its name, for people.
        tasks: what it is open for, by place: one task, or what others left of it and cut smaller when it was
            overdue.
        since: when (monotonic seconds).
        alone: whether the worker holds nothing else, because the task is suspected.
        grant: what the worker was given.
        overdue_at: when its deadline was found to have passed; None if it is in time.
    """

    # Invariant: tasks is not empty, and each of them has this number among its leases.
    number: int
    worker: str
    called: str
    tasks: list[Task]
    since: float
    alone: bool
    grant: Grant
    overdue_at: float | None = None

    @property
    def lacking(self) -> Grant:
        """What the worker was given, as far as nobody else has labelled it."""
        task, grant = self.tasks[0], self.grant
        if task.start == grant.start and task.stop == grant.stop:
            return grant
        return grant._replace(pieces=tuple([(task.start, task.stop) for task in self.tasks]))
