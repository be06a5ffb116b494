"""Which processes of a job to queue, to ask to leave and to cancel. Pure: queue and time in, acts out.

Every process has a *slot*: its role and its index. What becomes of a slot::

            submit                    gone, and that is worth another try, after a while
    free ------------> in the queue ----------------------------------------------------> submit
     ^                    |     |
     |  gone, as asked,   |     |  gone, with an answer: a student node that is done, or
     |  or told by others |     |  a process that would only fail again
     +--------------------+     +--------------------------------------------------------> settled

In the queue is whatever Slurm lists, also a process that it requeued: that comes back by itself. One that is
gone has left its exit code behind, unless it was killed with its script or its host.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from edldist_launch.plan.plan import Plan, Role
from edldist_launch.process.exits import EXIT_FAILED, EXIT_INCOMPATIBLE, EXIT_USAGE
from edldist_launch.process.restarts import RestartPolicy
from edldist_launch.slurm.layout import Layout, process_id
from edldist_launch.slurm.queued import QueuedTask
from edldist_launch.slurm.script import ARRAY_KINDS, LEFT_CODES

__all__ = ["KILLED", "RELEASE_AFTER_S", "Acts", "Note", "Outcome", "Placement", "Seen"]

KILLED = -9
"""Stands for the exit code of a process that left none."""
UNREADY_STARTS = 5
"""How many starts a worker has to join the job for the first time."""
RELEASE_AFTER_S = 30.0
"""How long a task is left on hold that Slurm could not start: what ails its host may be seen meanwhile."""
_FINAL: Mapping[str, Collection[int]] = {
    "teacher": (EXIT_INCOMPATIBLE,),
    "student": (EXIT_FAILED, EXIT_USAGE),
}


@dataclass(frozen=True)
class Seen:
    """What is known at one moment.

    Attributes:
        queue: all jobs of this one that have not ended.
        ended: exit codes that processes left behind, by what they are called.
        wanted: how many processes a role should have; a role that is not in it keeps those that it has.
        leaving: workers that should be the first to leave.
        joined: who takes part in the job.
        stopping: somebody asked the whole job to end, and sees to that.
    """

    queue: Sequence[QueuedTask]
    ended: Mapping[str, int] = field(default_factory=dict)
    wanted: Mapping[str, int] = field(default_factory=dict)
    leaving: Sequence[str] = ()
    joined: Collection[str] = ()
    stopping: bool = False


@dataclass(frozen=True)
class Note:
    """Something for the record.

    Attributes:
        what: ``started``, ``requeued``, ``crashed``, ``hopeless``, ``stopped``.
        where: its host, if it has one.
        code: with which it ended.
        retry_s: time until it is queued again.
    """

    role: Role
    process: str
    what: Literal["started", "requeued", "crashed", "hopeless", "stopped"]
    where: str = ""
    code: int = 0
    retry_s: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        reason: why, unless completed.
        process: whose last words say more.
    """

    status: Literal["completed", "failed", "interrupted"]
    reason: str = ""
    process: str | None = None


@dataclass
class Acts:
    """What is to be done.

    Attributes:
        submit: indices of tasks to queue, by role.
        standby: whether to queue a coordinator that takes over when this one has ended.
        ask: engine ids of processes that are to leave for good.
        cancel: engine ids of jobs that are to end.
        release: engine ids of tasks that Slurm could not start, and holds; they are to try again.
    """

    submit: dict[str, list[int]] = field(default_factory=dict)
    standby: bool = False
    ask: list[str] = field(default_factory=list)
    cancel: list[str] = field(default_factory=list)
    release: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    outcome: Outcome | None = None


@dataclass
class _Slot:
    role: Role
    index: int
    policy: RestartPolicy
    placed: bool = False
    ran: bool = False  # since it was queued last
    task: QueuedTask | None = None
    asked_at: float | None = None
    held_at: float | None = None  # since when Slurm holds it, as it could not start it
    settled: Literal["done", "hopeless"] | None = None
    code: int = 0

    @property
    def process(self) -> str:
        return process_id(self.role, self.index)

    @property
    def waits(self) -> bool:
        """For its time to be queued again."""
        return self.policy.restart_at is not None

    @property
    def counts(self) -> bool:
        """Whether it is one of those that are wanted."""
        return self.settled is None and self.asked_at is None and (self.placed or self.waits)


class Placement:
    """The slots of one job. What a fresh one needs to know is in the queue and in what processes left.

    Args:
        plan: of the job.
        grace_s: how long a process that was asked to leave may take until its job is cancelled.
    """

    def __init__(self, plan: Plan, grace_s: float) -> None:
        layout = Layout.of(plan)
        self._plan = plan
        self._grace_s = grace_s
        self._roles = [role for role in plan.roles if role.kind in ARRAY_KINDS]
        self._by_name = {layout.queue_name(role.kind, role.name): role for role in self._roles}
        self._coordinator = layout.queue_name("coordinator", "coordinator")
        self._fresh = True
        # Invariant: a slot is in here while it is in the queue, waits, or is settled.
        self._slots: dict[tuple[str, int], _Slot] = {}

    def turn(self, seen: Seen, now: float) -> Acts:
        """What to do now. Tasks that were submitted are to be told (``placed``) before the next turn."""
        acts = Acts()
        self._look(seen, acts, now)
        if seen.stopping:
            self._forget([slot for slot in self._slots.values() if slot.waits])
        else:
            for role in self._roles:
                self._balance(role, seen, acts, now)
        for slot in self._slots.values():
            if slot.asked_at is not None and slot.task is not None:
                overdue = now > slot.asked_at + self._grace_s
                if overdue or slot.task.phase == "pending":  # perhaps requeued since it was asked
                    acts.cancel.append(slot.task.engine_id)
        for slot in () if seen.stopping else self._slots.values():
            if slot.held_at is not None and slot.task is not None and now > slot.held_at + RELEASE_AFTER_S:
                slot.held_at = None  # and again from then, should it be held again
                acts.release.append(slot.task.engine_id)
        acts.outcome = self._outcome(seen)
        coordinators = [task for task in seen.queue if task.queue_name == self._coordinator]
        acts.standby = not (seen.stopping or acts.outcome) and not any(
            task.phase == "pending" for task in coordinators
        )
        return acts

    def placed(self, role: str, indices: Sequence[int]) -> None:
        """Tasks were queued."""
        for index in indices:
            slot = self._slot(self._plan.role(role), index)
            slot.placed, slot.ran, slot.task, slot.asked_at = True, False, None, None
            slot.policy.restart_at = None

    # --- what became of everybody ------------------------------------------------------------------

    def _look(self, seen: Seen, acts: Acts, now: float) -> None:
        alive: set[tuple[str, int]] = set()
        for task in seen.queue:
            role = self._by_name.get(task.queue_name)
            if role is None or task.index is None:
                continue
            slot = self._slot(role, task.index)
            former, slot.task, slot.placed, slot.settled = slot.task, task, True, None
            alive.add((role.name, task.index))
            if not task.launch_failed:
                slot.held_at = None
            elif slot.held_at is None:
                slot.held_at = now
            if slot.process in seen.joined:
                slot.policy.ready()
            if task.phase == "running" and (former is None or former.phase != "running"):
                slot.ran = True
                slot.policy.started(now)
                acts.notes.append(Note(role, slot.process, "started", task.where))
            elif former is not None and former.phase != "pending" and task.phase == "pending":
                acts.notes.append(Note(role, slot.process, "requeued"))
        if self._fresh:
            self._fresh = False
            for role, index in list(self._left_behind(seen)):
                self._slot(role, index).placed = True
        for key, slot in list(self._slots.items()):
            if key not in alive and slot.placed and slot.settled is None and not slot.waits:
                self._gone(slot, seen.ended.get(slot.process, KILLED), acts, now)

    def _left_behind(self, seen: Seen) -> Iterator[tuple[Role, int]]:
        """Processes that ended before this placement knew of them."""
        for role in self._roles:
            for process in seen.ended:
                head, dash, number = process.rpartition("-")
                mine = dash and head == role.name and number.isdecimal()
                if mine and (role.name, int(number)) not in self._slots:
                    yield role, int(number)

    def _gone(self, slot: _Slot, code: int, acts: Acts, now: float) -> None:
        kind, task = slot.role.kind, slot.task
        if not slot.ran:
            slot.policy.started(now)  # and ended, since the last look
        slot.placed, slot.task, slot.code = False, None, code
        where = task.where if task is not None else ""
        if kind == "student" and code == 0:
            slot.settled = "done"
        elif slot.asked_at is not None or code in LEFT_CODES:
            del self._slots[slot.role.name, slot.index]
        elif slot.policy.exited(code, now) == "restart" and slot.policy.restart_at is not None:
            retry_s = slot.policy.restart_at - now
            acts.notes.append(Note(slot.role, slot.process, "crashed", where, code, retry_s))
            return
        else:
            slot.settled = "hopeless"
            acts.notes.append(Note(slot.role, slot.process, "hopeless", where, code))
            return
        acts.notes.append(Note(slot.role, slot.process, "stopped", where, code))

    # --- how many there should be -------------------------------------------------------------------

    def _balance(self, role: Role, seen: Seen, acts: Acts, now: float) -> None:
        slots = self._of(role.name)
        if any(slot.settled == "done" for slot in slots):  # the others end by themselves; who waits is late
            acts.cancel += [s.task.engine_id for s in slots if s.task and s.task.phase == "pending"]
            self._forget([slot for slot in slots if slot.waits])
            return
        counting = [slot for slot in slots if slot.counts]
        hopeless = sum(slot.settled == "hopeless" for slot in slots)
        wanted = seen.wanted.get(role.name)
        missing = 0 if wanted is None else wanted - hopeless - len(counting)
        if missing < 0:
            self._let_go(counting, -missing, seen.leaving, acts, now)
        due = [s.index for s in counting if s.policy.restart_at is not None and now >= s.policy.restart_at]
        due = [index for index in due if (role.name, index) in self._slots]
        free = (i for i in range(len(slots) + max(missing, 0)) if (role.name, i) not in self._slots)
        indices = sorted([*due, *(next(free) for _ in range(missing))])
        if indices:
            acts.submit[role.name] = indices

    def _let_go(
        self, counting: Sequence[_Slot], count: int, leaving: Sequence[str], acts: Acts, now: float
    ) -> None:
        """Those first that do nothing yet; then those that should leave; then the youngest names."""
        order = {process: place for place, process in enumerate(leaving)}

        def worth(slot: _Slot) -> tuple[int, int, int]:
            idle = 0 if slot.task is None else 1 if slot.task.phase == "pending" else 2
            return idle, order.get(slot.process, len(order)), -slot.index

        for slot in sorted(counting, key=worth)[:count]:
            if slot.task is None:
                self._forget([slot])
                continue
            slot.asked_at = now
            if slot.task.phase != "pending":  # who waits is cancelled, with those that do not leave
                acts.ask.append(slot.task.engine_id)

    def _forget(self, slots: Sequence[_Slot]) -> None:
        for slot in slots:
            del self._slots[slot.role.name, slot.index]

    # --- the end -----------------------------------------------------------------------------------

    def _outcome(self, seen: Seen) -> Outcome | None:
        students = [slot for slot in self._slots.values() if slot.role.kind == "student"]
        if not seen.stopping:
            for slot in students:
                if slot.settled == "hopeless":
                    return Outcome("failed", "the student failed", slot.process)
            for teacher in self._plan.job.served:
                hopeless = [s for s in self._of(teacher.name) if s.settled == "hopeless"]
                wanted = seen.wanted.get(teacher.name, teacher.initial_replicas)
                if hopeless and wanted - len(hopeless) < teacher.least_workers:
                    process = hopeless[-1].process
                    return Outcome("failed", f"teacher worker {process} cannot work", process)
        if any(slot.placed or slot.waits for slot in students):
            return None
        if any(slot.settled == "done" for slot in students):
            return Outcome("completed")
        return Outcome("interrupted") if seen.stopping else None

    def _of(self, role: str) -> list[_Slot]:
        return [slot for slot in self._slots.values() if slot.role.name == role]

    def _slot(self, role: Role, index: int) -> _Slot:
        key = (role.name, index)
        if key not in self._slots:
            unready = UNREADY_STARTS if role.kind == "teacher" else None
            policy = RestartPolicy(final=_FINAL[role.kind], unready_starts=unready)
            self._slots[key] = _Slot(role, index, policy)
        return self._slots[key]
