"""The coordinator and the teacher workers that all trials of a tuning share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

from edldist.clock import Clock
from edldist.errors import EdlDistError
from edldist.wire.messages import Status
from edldist.wire.query import StatusClient
from edldist_launch.contract.backend import RoleState
from edldist_launch.job.coordinator import CoordinatorProcess
from edldist_launch.job.scaling import Scaling
from edldist_launch.job.stopped import Stopped
from edldist_launch.job.teachers import TeacherWorkers
from edldist_launch.local.child import Child
from edldist_launch.machine.room import most_processes
from edldist_launch.plan.plan import Plan
from edldist_launch.process.interrupts import Interrupts
from edldist_launch.record.folder import RecordFolder
from edldist_launch.tune.sharing import share_of_fleet
from edldist_launch.view.observers import Observers

__all__ = ["SharedFleet"]

STATUS_TIMEOUT_S = 0.5


class SharedFleet:
    """Starts them once, looks after them, and asks how it stands. Main thread only.

    Workers serve every student that asks; of those that ask at the same time each gets the same share
    (``teacher/service``), and with more than ``max_students_per_worker`` the coordinator parts them evenly.

    Args:
        folder: of the tuning.
        environment: of every process.
    """

    def __init__(
        self, folder: RecordFolder, environment: Mapping[str, str], observers: Observers, clock: Clock
    ) -> None:
        self._folder = folder
        self._environment = environment
        self._observers = observers
        self._clock = clock
        self._coordinator = CoordinatorProcess(folder, environment, observers, clock)
        self._scaling = Scaling(folder.path, observers)
        self._teachers: TeacherWorkers | None = None
        self._names: list[str] = []
        self._client: StatusClient | None = None
        self._since = 0
        self._incarnation: str | None = None

    @property
    def address(self) -> str:
        """Of the coordinator; empty before it listens."""
        return self._coordinator.address

    def start(self, plan: Plan, most_ranks: int, interrupts: Interrupts) -> None:
        """The coordinator, and as many workers as the job begins with.

        Args:
            plan: of the job that is tuned: what of it is the teachers' and the coordinator's.
            most_ranks: training processes of all trials that run at a time.

        Raises:
            Stopped: the coordinator did not start, or somebody interrupts.
        """
        self._coordinator.start(plan, interrupts)
        self._names = [teacher.name for teacher in plan.job.teachers]
        self._client = StatusClient(self.address)
        self._teachers = TeacherWorkers(
            plan,
            self._folder,
            self._environment,
            self._observers,
            self.address,
            room=lambda: most_processes() - most_ranks,
        )
        self._teachers.start(self._clock.monotonic())

    def look(self, timeout_s: float = STATUS_TIMEOUT_S) -> Status | None:
        """What is new of all jobs since the last answer; None if there is no answer.

        A coordinator that was started again counts its records anew, and is asked from the start.
        """
        if self._client is None:
            return None
        with contextlib.suppress(EdlDistError):
            status = self._client.query(self._since, timeout_s)
            restarted = self._incarnation not in (None, status.incarnation)
            self._incarnation = status.incarnation
            if restarted and self._since > 0:
                self._since = 0
                return None
            self._since = max(self._since, status.seq)
            self._observers.take(share_of_fleet(status), stopping=False)
            return status
        return None

    def tick(self, now: float) -> None:
        """Look after the processes.

        Raises:
            Stopped: a worker cannot work, and its group has not enough others; or a trial waits for a teacher
                that the job does not have.
        """
        self._coordinator.tick(now)
        if self._teachers is None or self._client is None:
            return
        self._teachers.tick(self._observers.joined() or (), now)
        strangers = sorted((self._observers.wanted() or set()) - set(self._names))
        if strangers:
            raise Stopped(
                "failed",
                f"the script wants labels of teacher {', '.join(map(repr, strangers))}, the job has "
                f"{', '.join(map(repr, self._names))}",
            )
        self._scaling.act(self._client, self._teachers, None, now)

    def roles(self) -> list[RoleState]:
        """Its processes as the launch contract tells them."""
        roles = [RoleState("coordinator", 1, tuple(self._coordinator.fleet.processes.values()))]
        return roles + ([] if self._teachers is None else self._teachers.roles(self._scaling.held))

    def end(self, end: Callable[[Sequence[Child], str], None]) -> None:
        """End the workers, then the coordinator; nothing stays behind.

        Args:
            end: asks children of a kind (``teachers``, ``coordinator``) to leave, and waits for them.
        """
        teachers = self._teachers.children if self._teachers is not None else []
        coordinator = self._coordinator.children
        self._observers.students_done()
        try:
            end(teachers, "teachers")
            if self._client is not None:
                self._client.close()
                self._client = None
            end(coordinator, "coordinator")
        finally:
            for child in (*teachers, *coordinator):
                child.kill()
            self._coordinator.forget_address_file()
