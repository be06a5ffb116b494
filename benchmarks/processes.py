"""Processes of a benchmark: started in order, ended whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import psutil

from edldist_launch.process.tie import tied_command

__all__ = ["EDLDIST", "ROOT", "ProcessEndedError", "Processes", "wait_until"]

ROOT = Path(__file__).resolve().parents[1]
EDLDIST = [sys.executable, "-m", "edldist_launch"]


class ProcessEndedError(Exception):
    """A process that should still run has ended; says how, with the end of its log."""


def wait_until(what: str, check: Callable[[], bool], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s in vain: {what}")
        time.sleep(0.01)


_watching: set[Processes] = set()


def _watch(processes: Processes) -> None:
    _watching.add(processes)
    signal.signal(signal.SIGCHLD, _on_child)


def _on_child(signum: int, frame: FrameType | None) -> None:
    for processes in list(_watching):
        processes.check()


class Processes:
    """Children of this process, each with its session; a context manager that ends them all.

    They die with this process too, however it ends.

    Args:
        folder: for their logs.
        watched: raise ``ProcessEndedError`` in the main thread as soon as one ends that nobody killed
            here, whatever that thread waits for: a loader would wait for a lost worker for ever.
    """

    def __init__(self, folder: Path, watched: bool = False) -> None:
        self.folder = folder
        self._watched = watched
        self._all: list[subprocess.Popen[bytes]] = []
        self._names: dict[int, str] = {}

    def start(self, name: str, *command: str, **env: str) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("EDLDIST_")}
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                tied_command(list(command), parent=os.getpid(), signum=signal.SIGKILL),
                cwd=ROOT,
                env=environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._all.append(process)
        self._names[process.pid] = name
        return process

    def coordinator(self, **env: str) -> str:
        """Start one and return its address."""
        ready = self.folder / "coordinator.json"
        bind = ["--bind", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0", "--address-file", str(ready)]
        self.start("coordinator", *EDLDIST, "coordinator", *bind, **env)
        self.wait("the coordinator", ready.exists)
        return str(json.loads(ready.read_text())["address"])

    def pid_of(self, name: str) -> int:
        """The process id of what was started last under a name."""
        return [pid for pid, known in self._names.items() if known == name][-1]

    def wait(self, what: str, check: Callable[[], bool], timeout_s: float = 120.0) -> None:
        """Wait as ``wait_until`` does, but no longer than all processes live.

        Raises:
            ProcessEndedError: one ended that nobody killed here.
            TimeoutError: time is up.
        """

        def done() -> bool:
            self.check()
            return check()

        wait_until(what, done, timeout_s)

    def check(self) -> None:
        """Raise ``ProcessEndedError`` if a process ended that nobody killed here."""
        for process in self._all:
            if process.pid in self._names and process.poll() is not None:
                name = self._names[process.pid]
                log = (self.folder / f"{name}.log").read_text(errors="replace").strip()
                raise ProcessEndedError(f"{name} ended with {process.returncode}: {log[-1000:]}")

    def kill_tree(self, process: subprocess.Popen[bytes]) -> None:
        """What losing a machine does to everything on it."""
        self._names.pop(process.pid, None)
        with contextlib.suppress(psutil.Error):
            for victim in [
                *psutil.Process(process.pid).children(recursive=True),
                psutil.Process(process.pid),
            ]:
                with contextlib.suppress(psutil.Error):
                    victim.kill()
        process.wait()

    def __enter__(self) -> Processes:
        if self._watched:
            _watch(self)
        return self

    def __exit__(self, *error: object) -> None:
        _watching.discard(self)
        for process in self._all:
            process.terminate()
        for process in self._all:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3)
            self.kill_tree(process)
