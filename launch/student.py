"""``edldist student``: a training script under torchrun, in the foreground."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from edldist.errors import ConfigError
from launch.child import tied_command
from launch.interrupts import Interrupts
from launch.torchrun import limit_threads, torchrun_command

__all__ = ["run_student"]

GRACE_S = 30.0
EXIT_INTERRUPTED = 130


def run_student(
    coordinator: str,
    script: str,
    args: Sequence[str],
    *,
    nnodes: str = "1",
    nproc_per_node: int = 1,
    max_restarts: int = 3,
) -> int:
    """Run the script to its end and return 0, 1 or 130.

    The group leads a session of its own: Ctrl-C reaches this process, which asks the group to
    leave (SIGTERM: checkpoint, then go), and kills it at the second Ctrl-C or after 30 s.

    Raises:
        ConfigError: the script does not exist, or ``nnodes`` is wrong.
    """
    command = torchrun_command(
        script, args, nnodes=nnodes, nproc_per_node=nproc_per_node, max_restarts=max_restarts
    )
    if not Path(script).is_file():
        raise ConfigError(f"no such script: {script} (looked from {Path.cwd()})")
    environment = dict(os.environ, EDLDIST_COORDINATOR=coordinator)
    if nproc_per_node > 1:
        limit_threads(environment, nproc_per_node)
    with Interrupts() as interrupts:
        group = subprocess.Popen(
            tied_command(command, parent=os.getpid()), env=environment, start_new_session=True
        )
        try:
            code = _wait(group, interrupts)
        finally:
            if group.poll() is None:
                os.killpg(group.pid, signal.SIGKILL)
                group.wait()
    if code == 0:
        return 0
    return EXIT_INTERRUPTED if interrupts.count else 1


def _wait(group: subprocess.Popen[bytes], interrupts: Interrupts) -> int:
    deadline: float | None = None
    while True:
        try:
            return group.wait(timeout=0.1)
        except subprocess.TimeoutExpired:
            pass
        if interrupts.count and deadline is None:
            group.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + GRACE_S
        if deadline is not None and (interrupts.count > 1 or time.monotonic() > deadline):
            os.killpg(group.pid, signal.SIGKILL)
            return group.wait()
