"""The launch contract on this machine: ``edldist run`` in the background, found again by its folder."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import psutil

from edldist.config import load_job
from edldist.errors import ConfigError, LaunchError
from edldist_launch.contract.backend import JobState
from edldist_launch.contract.submission import find_submission
from edldist_launch.contract.wishes import write_wishes
from edldist_launch.local.last_words import refusal
from edldist_launch.local.log_pipe import LogPipe
from edldist_launch.local.logs import follow_logs, read_logs
from edldist_launch.local.placement import ENDED, Launcher, read_placement, without_processes
from edldist_launch.machine.room import check_room
from edldist_launch.plan.commands import inherited_environment, own_command
from edldist_launch.plan.plan import Plan
from edldist_launch.record.earlier import Beginning
from edldist_launch.record.folder import LOCK
from edldist_launch.record.job_file import replace_job

__all__ = ["LocalBackend"]

START_S = 60.0
SCALE_S = 15.0
HURRY_S = 10.0
"""What a launcher that was told to hurry may take before it is killed."""
LOOK_S = 0.05

_left: list[tuple[subprocess.Popen[bytes], LogPipe]] = []
"""Launchers that this process started, and what carries their output: both outlive it, and nobody waits."""


class LocalBackend:
    """See ``Backend``. The engine is a process of ``edldist run``, which writes down what it has placed.

    Args:
        output: the job's folder.
        beginning: what becomes of an earlier run in it, when a job is started.
    """

    def __init__(self, output: Path, beginning: Beginning = "resume") -> None:
        self._output = output.absolute()
        self._beginning = beginning

    def start(self, plan: Plan) -> None:
        """Start ``edldist run`` in a session of its own; it runs when this returns.

        One that finds this very job finished starts nothing, and is no error.

        Raises:
            ConfigError: the launcher refuses the job, with its own words.
            LaunchError: a job runs in that folder, or the launcher did not start.
        """
        if (launcher := self._launcher()) is not None and launcher.runs:
            raise LaunchError(
                f"a job runs in {self._output} (process {launcher.pid}): stop it first, or choose another "
                "--output"
            )
        made = _make_folder(self._output)
        started = False
        try:
            self._launch(plan)
            started = True
        except OSError as exc:
            raise LaunchError(f"cannot start a job in {self._output}: {exc.strerror or exc}") from exc
        finally:
            if not started:
                _remove(self._output, made)

    def scale(self, wanted: Mapping[str, int | None]) -> None:
        """See ``Backend``; the launcher has taken the numbers up when this returns, if its students run.

        Raises:
            ConfigError: as in ``Backend``, or this machine has no room for so many processes.
            LaunchError: the job does not run, or its launcher does not answer.
        """
        launcher = self._running()
        plan = self._plan()
        for role, number in wanted.items():
            if number is None:
                plan.role(role)
            else:
                plan.check_scale(role, number)
        for there in self.state().roles:
            if there.fixed and there.name in wanted:
                raise ConfigError(f"{there.name} cannot be scaled: {there.fixed}")
        self._check_room(plan, wanted)
        write_wishes(self._output, wanted)
        deadline = time.monotonic() + SCALE_S
        while launcher.runs:
            state = self.state()
            held = {role.name: role.held for role in state.roles}
            if state.phase == "pending" or all(held.get(role) == wanted[role] for role in wanted):
                return
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"the launcher of {self._output} has not taken the number up within {SCALE_S:g} s: its "
                    "coordinator may be starting again; it will do so then"
                )
            time.sleep(LOOK_S)
        raise LaunchError(f"the job of {self._output} has ended meanwhile")

    def state(self) -> JobState:
        """See ``Backend``."""
        launcher = self._launcher()
        if launcher is None:
            raise LaunchError(f"no job was started in {self._output}")
        runs = launcher.runs
        state = read_placement(self._output)
        if state is None:
            raise LaunchError(f"the launcher of {self._output} left no record of what it placed")
        return state if runs or state.phase in ENDED else _killed(state)

    def logs(self, *roles: str, follow: bool = False) -> Iterator[str]:
        """See ``Backend``.

        Raises:
            ConfigError: the job has no such role.
            LaunchError: no job was started there.
        """
        if self._launcher() is None:
            raise LaunchError(f"no job was started in {self._output}")
        plan = self._plan()
        those = [plan.role(role) for role in roles] or list(plan.roles)
        if not follow:
            return read_logs(self._output, those)
        return follow_logs(self._output, those, ended=lambda: self.state().phase in ENDED)

    def stop(self, grace_s: float | None = None) -> None:
        """See ``Backend``."""
        launcher = self._launcher()
        if launcher is None:
            raise LaunchError(f"no job was started in {self._output}")
        if not launcher.runs:
            return
        state = read_placement(self._output)
        launcher.signal(signal.SIGTERM)
        if grace_s is not None and not _wait(launcher, grace_s):
            _insist(launcher)
        while launcher.runs:  # it has graces of its own, and kills who does not leave
            time.sleep(LOOK_S)
        _await_end_of_children(state)

    def _launch(self, plan: Plan) -> None:
        """Start the launcher, and wait until it has taken the job up."""
        submitted = self._output / ".job.yaml"
        replace_job(submitted, plan.job)
        log = self._output / "run.log"
        written = log.stat().st_size if log.exists() else 0
        command = own_command("run", str(submitted), "--output", str(self._output))
        command += ["--import-from", str(plan.beside)]
        command += [f"--{self._beginning}"] if self._beginning != "resume" else []
        pipe = LogPipe(log)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=pipe.write_end,
                stderr=subprocess.STDOUT,
                env=inherited_environment(os.environ),
                start_new_session=True,
            )
        finally:
            pipe.started()
        taken_up = False
        try:
            taken_up = self._await_launcher(process)
        finally:
            if not taken_up:
                process.kill()
                process.wait()
                pipe.finish()
            submitted.unlink(missing_ok=True)
        if taken_up:
            _left.append((process, pipe))
        elif process.returncode != 0:  # else it found this very job finished, and there was nothing to start
            self._refused(process.returncode, log, written)

    def _await_launcher(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + START_S
        while process.poll() is None and time.monotonic() < deadline:
            launcher = self._launcher()
            if launcher is not None and launcher.pid == process.pid and launcher.runs:
                return True
            time.sleep(LOOK_S)
        launcher = self._launcher()
        return launcher is not None and launcher.pid == process.pid  # and has ended already

    def _refused(self, code: int, log: Path, written: int) -> None:
        """Raise what the launcher said."""
        said = ""
        with contextlib.suppress(OSError), log.open("rb") as stream:
            stream.seek(written)
            said = stream.read().decode(errors="replace").strip()
        words = refusal(said) or said or f"it ended with exit code {code} and said nothing"
        if code == 2:
            raise ConfigError(words)
        raise LaunchError(f"edldist run did not start the job: {words}")

    def _launcher(self) -> Launcher | None:
        """Of the job that was started here; None where none was, or the folder was a cluster's job's last."""
        submission = find_submission(self._output)
        return None if submission is None or submission.backend != "local" else Launcher.of(submission)

    def _running(self) -> Launcher:
        launcher = self._launcher()
        if launcher is None:
            raise LaunchError(f"no job was started in {self._output}")
        if not launcher.runs:
            state = self.state()
            raise LaunchError(
                f"job {state.name} of {self._output} does not run any more: it {state.phase}"
                + (f" ({state.reason})" if state.reason else "")
            )
        return launcher

    def _plan(self) -> Plan:
        return Plan(load_job(self._output / "job.yaml"), self._output, self._output)

    def _check_room(self, plan: Plan, wanted: Mapping[str, int | None]) -> None:
        """Refuse what this machine has no room for, beside what is there."""
        numbers = {role.name: role.wanted for role in self.state().roles}
        numbers |= {role: number for role, number in wanted.items() if number is not None}
        ranks = plan.job.student.ranks
        check_room(
            {
                f"{role.name} ({role.kind}s)": numbers.get(role.name, role.replicas.initial)
                * (ranks if role.kind == "student" else 1)
                for role in plan.roles
                if role.kind in ("teacher", "student")
            }
        )


def _make_folder(output: Path) -> list[Path]:
    """Make a folder and those above it; which of them are new, the deepest first.

    Raises:
        LaunchError: it cannot be made.
    """
    missing = [path for path in (output, *output.parents) if not path.exists()]
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise LaunchError(f"cannot make {output}: {exc.strerror}") from exc
    return missing


def _remove(output: Path, made: list[Path]) -> None:
    """Remove what a start that failed has made: the folders, unless somebody else put something there."""
    if output not in made:
        return
    for name in ("run.log", LOCK):
        with contextlib.suppress(OSError):
            (output / name).unlink(missing_ok=True)
    for folder in made:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _killed(state: JobState) -> JobState:
    """The last state of a job whose launcher could not write its end."""
    ended = without_processes(state, "ended with its launcher")
    return replace(ended, phase="failed", reason="its launcher was killed")


def _wait(launcher: Launcher, seconds: float) -> bool:
    """Whether it has ended within so many seconds."""
    deadline = time.monotonic() + seconds
    while launcher.runs:
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True


def _insist(launcher: Launcher) -> None:
    """Have it kill its students, as a second Ctrl-C does; then kill it, and everything below it.

    Those below are tied to it, but would only be asked to leave by its end, and have graces of their own.
    """
    deadline = time.monotonic() + HURRY_S
    while launcher.runs and time.monotonic() < deadline:
        launcher.signal(signal.SIGINT)
        _wait(launcher, 1.0)
    below: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        if launcher.runs:
            below = psutil.Process(launcher.pid).children(recursive=True)
    launcher.signal(signal.SIGKILL)
    for process in below:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(below, timeout=HURRY_S)


def _await_end_of_children(state: JobState | None) -> None:
    """A launcher that was killed takes its children along, but does not wait for them."""
    pids = [int(process.engine_id) for role in state.roles for process in role.processes] if state else []
    deadline = time.monotonic() + HURRY_S
    while any(os.path.exists(f"/proc/{pid}") for pid in pids) and time.monotonic() < deadline:
        time.sleep(LOOK_S)
