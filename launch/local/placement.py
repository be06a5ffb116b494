"""What ``edldist run`` has placed on this machine: written by it, read by whoever asks for its state."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import psutil
from pydantic import TypeAdapter, ValidationError

from edldist.errors import LaunchError
from edldist.files import replace_file
from edldist_launch.contract.backend import JobState
from edldist_launch.contract.job_keys import link_here
from edldist_launch.contract.submission import Submission
from edldist_launch.process.tie import start_ticks

__all__ = ["ENDED", "Launcher", "Placement", "read_placement", "without_processes"]

NAME = "state.json"
ENDED = ("succeeded", "failed")
"""Phases of what goes on no more."""
_form = TypeAdapter(JobState)


class Placement:
    """Keeps ``submission.json`` and ``state.json`` in a job's folder. What cannot be written is said once.

    Args:
        output: the job's folder.
        job: its name.
        say: tells the person at the terminal a line, in a colour.
    """

    def __init__(self, output: Path, job: str, say: Callable[[str, str], object]) -> None:
        self._output = output
        self._job = job
        self._say = say
        self._told: JobState | None = None
        self._failing = False

    def tell(self, state: JobState) -> None:
        """Write down what there is now, if that is new. Of a job that has ended, no process goes on."""
        if state.phase in ENDED:
            state = without_processes(state, "its job ended while it waited")
        if state == self._told:
            return
        try:
            replace_file(self._output / NAME, f"{json.dumps(asdict(state), indent=2)}\n".encode())
            if self._told is None:
                engine = asdict(Launcher.here())
                Submission("local", self._job, engine=engine, link=link_here()).write(self._output)
            self._told = state
        except OSError as exc:
            if not self._failing:
                self._failing = True
                self._say(
                    f"cannot write {self._output / NAME} ({exc.strerror}): no command finds this job", ""
                )


def without_processes(state: JobState, reason: str) -> JobState:
    """The same with every process ended; those that had not have failed for that reason."""
    roles = []
    for role in state.roles:
        processes = [
            each if each.phase in ENDED else replace(each, phase="failed", reason=each.reason or reason)
            for each in role.processes
        ]
        roles.append(replace(role, processes=tuple(processes)))
    return replace(state, roles=tuple(roles))


def read_placement(output: Path) -> JobState | None:
    """What the launcher wrote last; None where it wrote nothing that can be read."""
    try:
        return _form.validate_json((output / NAME).read_bytes())
    except (OSError, ValidationError):
        return None


@dataclass(frozen=True)
class Launcher:
    """The process of ``edldist run``, told from every other one.

    Attributes:
        host: the machine on which it runs.
        ticks: when it started, in the kernel's count; process ids are given away again.
    """

    host: str
    pid: int
    ticks: int

    @classmethod
    def here(cls) -> Launcher:
        """This very process."""
        return cls(socket.gethostname(), os.getpid(), start_ticks(os.getpid()))

    @classmethod
    def of(cls, submission: Submission) -> Launcher:
        """The one that a submission names.

        Raises:
            LaunchError: the record names none.
        """
        try:
            return TypeAdapter(cls).validate_python(submission.engine)
        except ValidationError as exc:
            raise LaunchError(
                f"the record of job {submission.job} names no launcher: {submission.engine}"
            ) from exc

    @property
    def runs(self) -> bool:
        """Whether it runs.

        Raises:
            LaunchError: it is another machine's.
        """
        if self.host != socket.gethostname():
            raise LaunchError(
                f"the job was started on {self.host}, and only there its processes can be seen: "
                "say it there, or name the job by --coordinator URL"
            )
        try:
            status = psutil.Process(self.pid).status()
        except psutil.Error:
            return False
        return status != psutil.STATUS_ZOMBIE and start_ticks(self.pid) == self.ticks

    def signal(self, signum: int) -> None:
        """Signal it, if it runs: a descriptor of the process keeps its id from being given to another.

        Raises:
            LaunchError: this process may not signal it.
        """
        descriptor: int | None = None
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        except OSError:
            pass  # an old kernel, or a container's profile: it was looked at just before, which has to do
        try:
            if not self.runs:
                return
            if descriptor is None:
                os.kill(self.pid, signum)
            else:
                signal.pidfd_send_signal(descriptor, signum)
        except ProcessLookupError:
            return
        except PermissionError as exc:
            raise LaunchError(f"process {self.pid} of the job is another user's: {exc.strerror}") from exc
        finally:
            if descriptor is not None:
                os.close(descriptor)
