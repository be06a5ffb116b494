"""What Slurm says of the jobs in its queue, read. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edldist.errors import LaunchError
from edldist_launch.contract.backend import Phase

__all__ = ["FORMAT", "QueuedTask", "parse_queue"]

FORMAT = "%i|%j|%T|%N|%r"
"""The columns that are asked of squeue; none but the last may hold a bar."""

_PHASES: Mapping[str, Phase] = {
    "RUNNING": "running",
    "SUSPENDED": "running",
    "STOPPED": "running",
    "SIGNALING": "running",
    "STAGE_OUT": "leaving",
    "COMPLETING": "leaving",
}
"""States of a job that has a host; every other one that the queue shows waits for one."""

_LAUNCH_FAILED = "launch_failed_requeued_held"
_MEANINGS: Mapping[str, str] = {
    "PartitionConfig": "no host of its partition has as much as is asked for: ask for less, or elsewhere",
    "PartitionNodeLimit": "its partition has no such hosts, or they are down",
    "PartitionTimeLimit": "its partition allows no such time_limit",
    "PartitionDown": "its partition starts nothing now",
    "PartitionInactive": "its partition starts nothing now",
    "BadConstraints": "no host can be had with its constraint and all that it asks for",
    "DependencyNeverSatisfied": "what it waits for has failed",
    "ReqNodeNotAvail": "hosts that it asks for are down, or reserved",
    _LAUNCH_FAILED: "Slurm could not start it on its host, and holds it: scontrol release, as workers and "
    "nodes get it by themselves after half a minute",
    "job_requeued_in_held_state": "it is on hold: scontrol release",
    "JobHoldMaxRequeue": "Slurm has started it too often, and holds it: scontrol release",
    "JobHeldAdmin": "somebody holds it",
    "JobHeldUser": "it is on hold",
}
"""What reasons mean that a person might wait for in vain."""


@dataclass(frozen=True)
class QueuedTask:
    """A job, or a task of an array, that has not ended.

    Attributes:
        engine_id: ``1234``, or ``1234_3``.
        queue_name: what the job is called.
        index: of the task in its array; None for a job without one.
        state: in Slurm's word.
        reason: in Slurm's words; empty where there is none.
    """

    engine_id: str
    queue_name: str
    index: int | None
    state: str
    where: str = ""
    reason: str = ""

    @property
    def phase(self) -> Phase:
        return _PHASES.get(self.state, "pending")

    @property
    def launch_failed(self) -> bool:
        """Whether Slurm could not start it on its host, and holds it until somebody releases it."""
        return self.phase == "pending" and self._reason == _LAUNCH_FAILED

    @property
    def _reason(self) -> str:
        # squeue writes some with spaces, scontrol with underscores.
        return self.reason.partition(",")[0].replace(" ", "_")

    @property
    def why(self) -> str:
        """The reason, and what it means where that is not plain."""
        meaning = _MEANINGS.get(self._reason)
        return f"{self.reason}: {meaning}" if meaning else self.reason


def parse_queue(lines: Iterable[str]) -> list[QueuedTask]:
    """The tasks that ``squeue --array --format=FORMAT`` lists.

    Raises:
        LaunchError: a line is none of these.
    """
    tasks = []
    for line in filter(None, map(str.strip, lines)):
        fields = line.split("|", 4)
        number, underscore, index = fields[0].partition("_")
        if len(fields) != 5 or not number.isdecimal() or (underscore and not index.isdecimal()):
            raise LaunchError(f"squeue says {line!r}, which is no line of {FORMAT!r}")
        engine_id, name, state, where, reason = fields
        tasks.append(
            QueuedTask(
                engine_id,
                name,
                int(index) if underscore else None,
                state,
                where,
                "" if reason in ("None", "(null)") else reason,
            )
        )
    return tasks
