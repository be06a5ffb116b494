"""Slurm's commands, and its words when one is refused."""

from __future__ import annotations

import getpass
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from edldist.errors import LaunchError
from edldist_launch.plan.commands import inherited_environment
from edldist_launch.slurm.queued import FORMAT, QueuedTask, parse_queue

__all__ = ["LEAVE_FOR_GOOD", "NO_CLUSTER", "Slurm", "SlurmCommands", "clean_environment", "run_command"]

LEAVE_FOR_GOOD = "USR2"
"""What a job script is sent that is to let its process leave, and not to bring it back."""
ANSWER_S = 60.0
_MOST_IDS = 500
"""Ids on one command line."""
_KEPT = ("SLURM_CONF", "SLURM_CLUSTERS")
_GONE = ("Invalid job id specified", "Job/step already completing or completed", "Job is pending execution")
_GONE_CODES = frozenset({2017 & 0xFF, 2021 & 0xFF})
"""The same, by Slurm's numbers, of which an exit code has the lowest eight bits: scancel says no word of an
array's task that has just ended."""

_UNREACHED = ("configuration source", "contact slurm controller")
NO_CLUSTER = "is slurm.conf here that of a cluster, and its controller up?"


class Slurm(Protocol):
    """What is asked of a cluster. Each call blocks until Slurm has answered.

    Every method raises ``LaunchError`` with Slurm's own words when it refuses, or does not answer.
    """

    def submit(self, script: Path, *options: str) -> str:
        """Queue a job script; the job's id."""
        ...

    def try_out(self, script: Path, *options: str) -> str:
        """Whether a job script would be queued; what Slurm says of it. Nothing is queued."""
        ...

    def queue(self, names: Sequence[str]) -> list[QueuedTask]:
        """The jobs of these names that have not ended, each task of an array for itself."""
        ...

    def release(self, engine_id: str) -> None:
        """Let a job start that was queued on hold."""
        ...

    def ask(self, engine_ids: Sequence[str]) -> None:
        """Have processes leave for good, with as much time as they need. Ended ones are left alone."""
        ...

    def cancel(self, engine_ids: Sequence[str]) -> None:
        """End jobs: SIGTERM, and SIGKILL after the cluster's KillWait. Ended ones are left alone."""
        ...


Run = Callable[[Sequence[str], Mapping[str, str], float], "subprocess.CompletedProcess[str]"]


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Of some variables those that a job may have.

    Slurm's own describe the job from which one is submitted, and those for sbatch would overrule the
    script: what ``render`` shows would not be what is used. Names of this host are of no use elsewhere.
    """
    return {
        key: value
        for key, value in inherited_environment(environment).items()
        if key in _KEPT or not (key.startswith(("SLURM", "SBATCH_", "SRUN_")) or key == "EDLDIST_ADVERTISE")
    }


def run_command(
    command: Sequence[str], environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a command of this machine.

    Raises:
        OSError: it cannot be started.
        subprocess.TimeoutExpired: it has not ended in time, and was killed.
    """
    return subprocess.run(
        list(command),
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout_s,
        check=False,
    )


class SlurmCommands:
    """The commands of this machine."""

    def __init__(self, run: Run = run_command, environment: Mapping[str, str] = os.environ) -> None:
        self._run = run
        self._environment = clean_environment(environment)

    def submit(self, script: Path, *options: str) -> str:
        said = self._call("sbatch", "--parsable", *options, str(script))
        number = said.strip().split(";")[0]
        if not number.isdecimal():
            raise LaunchError(f"sbatch says {said.strip()!r} instead of a job's id")
        return number

    def try_out(self, script: Path, *options: str) -> str:
        done = self._done("sbatch", "--test-only", *options, str(script))
        return _words("sbatch", _lines(done.stderr))

    def queue(self, names: Sequence[str]) -> list[QueuedTask]:
        wanted = ("--name", ",".join(names))
        said = self._call(
            "squeue", "--noheader", "--array", "--user", getpass.getuser(), *wanted, f"--format={FORMAT}"
        )
        return parse_queue(said.splitlines())

    def release(self, engine_id: str) -> None:
        self._call("scontrol", "release", engine_id)

    def ask(self, engine_ids: Sequence[str]) -> None:
        self._cancel(engine_ids, "--batch", f"--signal={LEAVE_FOR_GOOD}")

    def cancel(self, engine_ids: Sequence[str]) -> None:
        self._cancel(engine_ids)

    def _cancel(self, engine_ids: Sequence[str], *options: str) -> None:
        for start in range(0, len(engine_ids), _MOST_IDS):
            self._call("scancel", *options, *engine_ids[start : start + _MOST_IDS], forgive=_GONE)

    def _call(self, *command: str, forgive: Sequence[str] = ()) -> str:
        return self._done(*command, forgive=forgive).stdout

    def _done(self, *command: str, forgive: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        try:
            done = self._run(command, self._environment, ANSWER_S)
        except FileNotFoundError as exc:
            raise LaunchError(
                f"there is no {command[0]} here: run this where Slurm's commands are, as on a login node"
            ) from exc
        except OSError as exc:
            raise LaunchError(f"cannot run {command[0]}: {exc.strerror}") from exc
        except subprocess.TimeoutExpired as exc:
            raise LaunchError(
                f"{command[0]} was not answered by Slurm's controller within {ANSWER_S:.0f} s"
            ) from exc
        said = _lines(done.stderr)
        if done.returncode == 0 or (said and all(any(word in line for word in forgive) for line in said)):
            return done
        if forgive and not said and done.returncode in _GONE_CODES:
            return done
        words = _words(command[0], said) or f"exit code {done.returncode}"
        if any(each in words for each in _UNREACHED):
            words += f" ({NO_CLUSTER})"
        raise LaunchError(f"{command[0]}: {words}")


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _words(command: str, lines: Sequence[str]) -> str:
    """What a command says of an error, in one line and without its own name in front."""
    return "; ".join(line.removeprefix(f"{command}: ").removeprefix("error: ") for line in lines)
