"""The student nodes of a job on this machine."""

from __future__ import annotations

from collections.abc import Mapping

from edldist_launch.contract.backend import RoleState
from edldist_launch.job.changes import note_change
from edldist_launch.job.leaving import Leaving
from edldist_launch.job.stopped import Stopped
from edldist_launch.local.child import Child, describe_exit
from edldist_launch.local.fleet import Fleet
from edldist_launch.plan.plan import Plan
from edldist_launch.process.exits import EXIT_FAILED, EXIT_USAGE
from edldist_launch.record.folder import RecordFolder
from edldist_launch.view.observers import Observers

__all__ = ["StudentNodes"]

FINAL_CODES = (EXIT_FAILED, EXIT_USAGE)


class StudentNodes:
    """Owns the processes of the student's nodes. Main thread only.

    Args:
        folder: where logs go.
        environment: of every process of the job.
        address: of the coordinator.
    """

    def __init__(
        self,
        plan: Plan,
        folder: RecordFolder,
        environment: Mapping[str, str],
        observers: Observers,
        address: str,
    ) -> None:
        self._plan = plan
        self._times = Leaving(plan.job.grace.times)
        self._folder = folder
        self._environment = environment
        self._observers = observers
        self._address = address
        self._wanted = plan.role("student").replicas.initial
        self._fleet = Fleet(self._make, [str(each) for each in range(self._wanted)], final=FINAL_CODES)

    @property
    def children(self) -> list[Child]:
        return self._fleet.children

    @property
    def settled(self) -> bool:
        """Whether every node has ended, and none will be started again."""
        return self._fleet.settled

    @property
    def done(self) -> bool:
        """Whether every node came to its end."""
        return all(child.poll() == 0 for child in self.children)

    def role(self, held: Mapping[str, int]) -> RoleState:
        """The nodes as the launch contract tells them.

        Args:
            held: the numbers that a person asked for.
        """
        return RoleState("student", self._wanted, tuple(self._fleet.processes.values()), held.get("student"))

    def start(self, now: float) -> None:
        """Start those that the job begins with."""
        for change in self._fleet.start(now):
            self._observers.event("student_started", id=change.child.id, pid=change.child.pid)

    def tick(self, now: float) -> None:
        """Look after every node.

        Raises:
            Stopped: the script failed, or all nodes were asked to leave.
        """
        for change in self._fleet.tick(now):
            note_change(self._observers, "student", change)
            if change.event == "hopeless":
                raise Stopped("failed", f"the student failed ({describe_exit(change.code)})", change.child)
            if change.event == "stopped" and self.settled and all(child.poll() for child in self.children):
                raise Stopped("interrupted", "every student node was asked to leave")
            # else a node was taken away, or has come to its end; the others train on

    def want(self, nodes: int | None, now: float) -> None:
        """Have so many nodes; None for as many as the job file says.

        Once a node has come to its end, the others are about to: none is started any more.
        """
        wanted = self._plan.role("student").replicas.initial if nodes is None else nodes
        if wanted == self._wanted or self._ending:
            return
        self._wanted = wanted
        here = [name for name in self._fleet.staying if self._fleet.settled_as(name) is None]
        for name in sorted(here, key=int)[wanted:]:
            self._observers.event("student_draining", id=self._fleet.id_of(name))
            self._observers.say(f"{self._fleet.id_of(name)} is told to leave: {wanted} nodes are wanted")
            self._fleet.drain(name, now, self._times.students_s)
        for _ in range(wanted - len(here)):
            note_change(self._observers, "student", self._fleet.add(self._free_name(), now))

    @property
    def _ending(self) -> bool:
        return any(child.poll() == 0 for child in self.children)

    def _free_name(self) -> str:
        """The lowest number that no node has; one that was taken away gives its own."""
        number = 0
        while (name := str(number)) in self._fleet:
            if self._fleet.settled_as(name) is not None:
                self._fleet.forget(name)
                break
            number += 1
        return name

    def _make(self, name: str, attempt: int) -> Child:
        environment = {**self._environment, **self._plan.student_environment(self._address)}
        command = self._plan.student_command(self._address)
        return Child(f"student-{name}", command, environment, self._folder.log_path("student", name))
