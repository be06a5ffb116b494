"""The teacher workers of a job on this machine: as many as are wanted, started again when they crash."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from edldist.wire.messages import GroupStatus
from edldist_launch.contract.backend import RoleState
from edldist_launch.job.changes import note_change
from edldist_launch.job.leaving import Leaving
from edldist_launch.job.stopped import Stopped
from edldist_launch.job.workers import Workers
from edldist_launch.local.child import Child, describe_exit
from edldist_launch.local.fleet import Change, Fleet
from edldist_launch.local.last_words import own_error
from edldist_launch.machine.cpu_shares import limit_threads
from edldist_launch.plan.plan import Plan
from edldist_launch.process.exits import EXIT_INCOMPATIBLE
from edldist_launch.record.folder import RecordFolder
from edldist_launch.view.observers import Observers

__all__ = ["TeacherWorkers"]

FINAL_CODES = (EXIT_INCOMPATIBLE,)
UNREADY_STARTS = 5


class TeacherWorkers:
    """Owns the processes of all teacher groups. Main thread only.

    A worker that cannot work is given up: it counts as one that is there, so that nobody starts it over and
    over again, until fewer are wanted. So does one that somebody asked to leave by hand, unless the job lets
    the number of its workers move.

    Args:
        folder: where logs go.
        environment: of every process of the job; with ``OMP_NUM_THREADS`` if that is fixed.
        room: how many processes this machine can take beside those that are no workers.
    """

    def __init__(
        self,
        plan: Plan,
        folder: RecordFolder,
        environment: Mapping[str, str],
        observers: Observers,
        address: str,
        room: Callable[[], int],
    ) -> None:
        self._plan = plan
        self._times = Leaving(plan.job.grace.times)
        self._folder = folder
        self._environment = environment
        self._observers = observers
        self._address = address
        self._room = room
        self._workers = Workers(plan.job)
        self._wanted = {teacher.name: teacher.initial_replicas for teacher in plan.job.served}
        self._starts: Counter[str] = Counter()  # of every name, in this run: ids are never given twice
        self._cramped: set[str] = set()
        self._fleet = Fleet(
            self._make, self._workers.names, final=FINAL_CODES, unready_starts=UNREADY_STARTS, serve=True
        )

    @property
    def children(self) -> list[Child]:
        return self._fleet.children

    def roles(self, held: Mapping[str, int]) -> list[RoleState]:
        """The groups as the launch contract tells them.

        Args:
            held: the numbers that a person asked for.
        """
        processes = self._fleet.processes
        return [
            RoleState(
                group,
                wanted,
                tuple(processes[name] for name in self._workers.of(group) if name in processes),
                held.get(group),
            )
            for group, wanted in self._wanted.items()
        ]

    def start(self, now: float) -> None:
        """Start those that the job begins with."""
        for change in self._fleet.start(now):
            self._observers.event("teacher_started", id=change.child.id, pid=change.child.pid)

    def tick(self, joined: Iterable[str], now: float) -> None:
        """Look after every worker.

        Args:
            joined: ids of the members of the job.

        Raises:
            Stopped: a worker cannot work, and its group has not enough others.
        """
        self._fleet.seen(joined)
        for change in self._fleet.tick(now):
            note_change(self._observers, "teacher", change)
            if change.event == "removed":
                self._workers.remove(change.name)
            elif change.event == "crashed":
                self._observers.crashed(change.child.id)
            elif change.event == "hopeless":
                self._do_without(change)

    def want(self, groups: Iterable[GroupStatus], now: float) -> None:
        """Have as many workers as the coordinator says, as far as this machine has room for them."""
        for group in groups:
            if group.name in self._wanted and group.wanted is not None:
                self._scale(group, group.wanted, now)

    def _scale(self, group: GroupStatus, wanted: int, now: float) -> None:
        self._wanted[group.name] = wanted
        self._observers.workers_wanted(sum(self._wanted.values()))
        self._forget_those_who_left(group.name)
        here = self._staying(group.name)
        for name in self._leaving(here, group.leaving)[: max(0, len(here) - wanted)]:
            self._observers.event("teacher_draining", id=self._fleet.id_of(name), reason=group.why)
            self._observers.say(f"teacher {self._fleet.id_of(name)} is told to leave: {group.why}")
            self._fleet.drain(name, now, self._times.drain_s)
        missing = wanted - len(here)
        fitting = min(missing, self._room() - len(self._workers))
        if fitting < missing and group.name not in self._cramped:
            self._observers.say(
                f"teacher {group.name}: {wanted} workers are wanted, and this machine has room for "
                f"{len(here) + max(0, fitting)}",
                "yellow",
            )
        self._cramped = (self._cramped - {group.name}) | ({group.name} if fitting < missing else set())
        for name in self._workers.add(group.name, max(0, fitting)):
            note_change(self._observers, "teacher", self._fleet.add(name, now))

    def _staying(self, group: str) -> list[str]:
        staying = set(self._fleet.staying)
        return [name for name in self._workers.of(group) if name in staying]

    def _forget_those_who_left(self, group: str) -> None:
        """Free the slots of workers that somebody asked to leave, where the number of workers may move."""
        bounds = self._plan.role(group).replicas
        if bounds.min == bounds.max:
            return
        for name in self._staying(group):
            if self._fleet.settled_as(name) == "stopped":
                self._fleet.forget(name)
                self._workers.remove(name)

    def _leaving(self, here: Sequence[str], joined: Sequence[str]) -> list[str]:
        """Who leaves first: those that do no work, the youngest first, then as the coordinator says."""
        order = {worker_id: place for place, worker_id in enumerate(joined)}
        youngest_first = list(reversed(here))
        return sorted(youngest_first, key=lambda name: order.get(self._fleet.id_of(name), -1))

    def _do_without(self, change: Change) -> None:
        """A worker cannot work: the job goes on if its teacher has enough others, else it ends."""
        teacher = self._workers[change.name]
        names = self._staying(teacher.name)
        left = sum(self._fleet.settled_as(name) != "hopeless" for name in names)
        if left < teacher.least_workers:
            raise Stopped("failed", f"teacher worker {_hopeless(change)}", change.child)
        said = own_error(change.child.output())
        self._observers.event(
            "teacher_given_up", id=change.child.id, teacher=teacher.name, left=left, error=said
        )
        self._observers.say(
            f"teacher {teacher.name} goes on with {left} of {len(names)} workers "
            f"(min_replicas: {teacher.least_workers}){f': {said}' if said else ''}",
            "yellow",
        )

    def _make(self, name: str, attempt: int) -> Child:
        starts = self._starts[name]
        self._starts[name] += 1
        teacher = self._workers[name]
        worker_id = f"{name}.r{starts}" if starts else name
        environment = {**self._environment}
        limit_threads(environment, len(self._workers) + self._plan.ranks)
        command = self._plan.teacher_command(teacher, worker_id, self._address)
        return Child(worker_id, command, environment | teacher.env, self._folder.log_path("teacher", name))


def _hopeless(change: Change) -> str:
    """Why a worker is not started again."""
    if change.code == EXIT_INCOMPATIBLE:
        return f"{change.child.id} is not the teacher whose name it serves under"
    tries = f"; it never joined the job in {change.starts} starts" if change.starts > 1 else ""
    return f"{change.child.id} cannot work ({describe_exit(change.code)}{tries})"
