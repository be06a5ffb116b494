"""The launch contract: what ``edldist`` asks of an engine that places processes.

Three implementations keep it (``launch.local``, ``launch.slurm``, ``launch.kubernetes``), and one suite of
tests runs against all of them (``tests/contract/launch``). A backend places what a plan says, and nothing
else: it restarts what the engine restarts, and decides nothing about how many there should be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from edldist_launch.plan.plan import Plan

__all__ = ["Backend", "JobState", "Phase", "ProcessState", "RoleState"]

Phase = Literal["pending", "running", "leaving", "succeeded", "failed"]


@dataclass(frozen=True)
class ProcessState:
    """One placed process.

    Attributes:
        id: what it is called in the job (``teacher-3``, ``student-0``).
        engine_id: what the engine calls it (a process id, ``1234_3``, a pod's name).
        phase: a worker or a coordinator that left as it was asked to has succeeded; a student node has more
            to do then, and has not.
        where: the host it runs on; empty while it has none.
        reason: the engine's own words for a state that a person would ask about.
        restarts: how often it was started again.
    """

    id: str
    engine_id: str
    phase: Phase
    where: str = ""
    reason: str = ""
    restarts: int = 0


@dataclass(frozen=True)
class RoleState:
    """All processes of a role, ended ones included as long as the engine knows of them.

    Attributes:
        wanted: how many there should be.
        held: the number that a person asked for, until they ask for ``auto``.
        fixed: why nobody scales it, whatever the plan says; empty if they do.
    """

    name: str
    wanted: int
    processes: tuple[ProcessState, ...] = ()
    held: int | None = None
    fixed: str = ""

    def count(self, *phases: Phase) -> int:
        """How many processes are in one of these phases."""
        return sum(process.phase in phases for process in self.processes)


@dataclass(frozen=True)
class JobState:
    """A job as its engine sees it.

    Attributes:
        phase: pending until the first student runs, succeeded or failed once the students have ended.
        coordinator: ``tcp://host:port`` by which this process reaches it, or None while nobody knows.
        reason: why it failed, or what it waits for, in the engine's words.
    """

    name: str
    phase: Phase
    coordinator: str | None = None
    reason: str = ""
    roles: tuple[RoleState, ...] = field(default=())

    def role(self, name: str) -> RoleState:
        """The role of that name.

        Raises:
            KeyError: the job has none.
        """
        for role in self.roles:
            if role.name == name:
                return role
        raise KeyError(name)


class Backend(Protocol):
    """An engine, for one job. Calls come from one thread, and block until the engine has answered.

    Every method raises ``LaunchError`` when the engine refuses or cannot be reached, with its own words.
    """

    def start(self, plan: Plan) -> None:
        """Place everything, or nothing: what was made before something failed is removed.

        Raises:
            LaunchError: a job of that name, or in that output folder, is there already.
        """

    def scale(self, wanted: Mapping[str, int | None]) -> None:
        """Let teacher groups, or the student's nodes, have so many processes: all of these numbers, or none.

        Whom it is too many leaves as it does on SIGTERM: workers give back what they hold, nodes save.

        Args:
            wanted: by the name of the role; None for what the job file says, or the coordinator decides.

        Raises:
            ConfigError: the job has no such role, or a number is outside its bounds.
            LaunchError: the job does not run (any more).
        """

    def state(self) -> JobState:
        """What there is now."""

    def logs(self, *roles: str, follow: bool = False) -> Iterator[str]:
        """Lines of the roles' processes, or of all, each begun by the process's id, by time (``log_order``).

        Args:
            follow: go on until the job has ended; what comes is in order as far as it comes at once.

        Raises:
            ConfigError: the job has no such role.
        """

    def stop(self, grace_s: float | None = None) -> None:
        """End the job: students save a checkpoint and leave, then workers, then the coordinator.

        Returns when nothing is left. Of a job that has ended, what its engine still has goes, and how it
        ended stays known.

        Args:
            grace_s: most seconds for the students; None for what the plan says.
        """
