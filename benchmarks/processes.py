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

import psutil

from launch.child import tied_command

__all__ = ["EDLDIST", "Processes", "wait_until"]

ROOT = Path(__file__).resolve().parents[1]
EDLDIST = [sys.executable, "-m", "launch"]


def wait_until(what: str, check: Callable[[], bool], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s in vain: {what}")
        time.sleep(0.01)


class Processes:
    """Children of this process, each with its session; a context manager that ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._all: list[subprocess.Popen[bytes]] = []

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
        return process

    def coordinator(self) -> str:
        """Start one and return its address."""
        ready = self.folder / "coordinator.json"
        bind = ["--bind", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0", "--ready-file", str(ready)]
        self.start("coordinator", *EDLDIST, "coordinator", *bind)
        wait_until("the coordinator", ready.exists)
        return str(json.loads(ready.read_text())["address"])

    def kill_tree(self, process: subprocess.Popen[bytes]) -> None:
        """What losing a machine does to everything on it."""
        with contextlib.suppress(psutil.Error):
            for victim in [
                *psutil.Process(process.pid).children(recursive=True),
                psutil.Process(process.pid),
            ]:
                with contextlib.suppress(psutil.Error):
                    victim.kill()
        process.wait()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._all:
            # A coordinator that ends in order ends its rendezvous store, which is no child of it.
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(3)
            self.kill_tree(process)
