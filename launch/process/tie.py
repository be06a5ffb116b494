"""Become a command that dies with its parent: ``python -I -S tie.py SIGNAL PARENT NOTES COMMAND...``.

Linux sends SIGNAL (a number) to this process when the thread that started it ends, however it
ends (``PR_SET_PDEATHSIG``), and the setting survives ``exec``. It is made here, in a process of
its own, because ``preexec_fn`` is not safe in a program with threads. PARENT is the expected
parent's process id, or 0 when the caller could not know it. Elsewhere than on Linux the command
simply runs. NOTES, unless empty, is a file to which a line ``start NAME PID TICKS`` is appended, so that
whoever watches from further up misses no start, however short the life. NAME tells the command's
process from every other one, and is handed to it in ``EDLDIST_PROCESS`` (``edldist.wire.process``);
TICKS is when the process started, in the kernel's count, and with it PID tells it on this machine.

This file is run by path and imports nothing of this package: it costs a bare interpreter's start.
"""

from __future__ import annotations

import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PROCESS_VARIABLE = "EDLDIST_PROCESS"


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


def start_ticks(pid: int) -> int:
    """When a process of this machine started, in the kernel's count; 0 where that cannot be told.

    Process ids are given away again; an id together with this is not.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0


def note_start(notes: str) -> None:
    """Name this process and append its start to a file, which need not be writable for it to run."""
    pid, name = os.getpid(), os.urandom(16).hex()
    os.environ[PROCESS_VARIABLE] = f"{name}@{pid}"
    try:
        with open(notes, "a", encoding="utf-8") as book:
            book.write(f"start {name} {pid} {start_ticks(pid)}\n")
    except OSError as exc:
        print(f"cannot note a start in {notes}: {exc.strerror}", file=sys.stderr)


def tied_command(command: list[str], parent: int, signum: int = signal.SIGTERM, notes: str = "") -> list[str]:
    """The command line that runs ``command`` tied to the life of ``parent`` (0: whoever starts it)."""
    tie = [os.path.abspath(__file__), str(int(signum)), str(parent), notes]
    return [sys.executable, "-I", "-S", *tie, *command]


if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]), int(sys.argv[2]))
    if sys.argv[3]:
        note_start(sys.argv[3])
    try:
        os.execvp(sys.argv[4], sys.argv[4:])
    except OSError as exc:
        print(f"error: cannot run {sys.argv[4]}: {exc.strerror}", file=sys.stderr)
        sys.exit(127)
