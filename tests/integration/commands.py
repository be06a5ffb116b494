"""Commands of edldist as processes, which end with the test."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from edldist_launch.process.tie import tied_command

__all__ = ["ROOT", "WITHIN_S", "edldist", "student"]

ROOT = Path(__file__).resolve().parents[2]
WITHIN_S = 90.0


def student(
    coordinator: str, *args: str, prefix: list[str] | None = None
) -> contextlib.AbstractContextManager[subprocess.Popen[str]]:
    return edldist("student", "--coordinator", coordinator, *args, prefix=prefix)


@contextlib.contextmanager
def edldist(*args: str, prefix: list[str] | None = None) -> Iterator[subprocess.Popen[str]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")}
    command = [sys.executable, str(ROOT / "launch" / "__main__.py")]
    with subprocess.Popen(
        tied_command([*(prefix or []), *command, *args], parent=os.getpid()),
        env=environment | {"OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # its agent and its ranks are tied to it
