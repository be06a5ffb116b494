"""Become a command that dies with its parent: ``python -I -S child.py SIGNAL PARENT COMMAND...``.

Linux sends SIGNAL (a number) to this process when the thread that started it ends, however it
ends (``PR_SET_PDEATHSIG``), and the setting survives ``exec``. It is made here, in a process of
its own, because ``preexec_fn`` is not safe in a program with threads. PARENT is the expected
parent's process id, or 0 when the caller could not know it. Elsewhere than on Linux the command
simply runs.

This file is run by path and imports nothing of this package: it costs a bare interpreter's start.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def die_with_parent(signum: int, parent: int) -> None:
    """Ask for ``signum`` at the parent's death; leave at once when it is dead already."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes

    parent = parent or os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)


def tied_command(command: list[str], parent: int, signum: int = signal.SIGTERM) -> list[str]:
    """The command line that runs ``command`` tied to the life of ``parent`` (0: whoever starts it)."""
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), str(int(signum)), str(parent), *command]


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]), int(sys.argv[2]))
    try:
        os.execvp(sys.argv[3], sys.argv[3:])
    except OSError as exc:
        print(f"error: cannot run {sys.argv[3]}: {exc.strerror}", file=sys.stderr)
        sys.exit(127)
