"""Gloo's threads when the interpreter ends: none may be about to free a tensor of Python's.

A thread of gloo's lets go of a collective's tensors after it has told the one who waits that it is done. For
that it takes the interpreter lock, and Python ends a thread that asks for the lock while it shuts down: from
within C++ that is ``terminate called without an active exception`` and exit by SIGABRT, of a rank that
had finished its work (torch 2.13; seen once in twenty-four on a loaded machine).
"""

from __future__ import annotations

import atexit
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["await_gloo_threads", "install"]

_NAME = "pt_gloo_runloop"
_LONGEST_S = 5.0
_LOOK_S = 0.001


def await_gloo_threads() -> None:
    """Wait until gloo's threads have nothing left to do, at most five seconds.

    A thread has nothing left to do if it sleeps, and did not wake while the interpreter lock was free. One
    that waits for other ranks sleeps too: wait for your own collectives first.
    """
    deadline = time.monotonic() + _LONGEST_S
    before = None
    while (now := dict(_threads())) and time.monotonic() < deadline:
        if now == before and all(state == "S" for state, _ in now.values()):
            return
        before = now
        time.sleep(_LOOK_S)  # which lets go of the lock


def install() -> None:
    """Have it done at exit; before other handlers are installed, as the last one is called first."""
    atexit.register(await_gloo_threads)


def _threads() -> Iterator[tuple[str, tuple[str, str]]]:
    """Gloo's threads: state, and how often each went to sleep."""
    try:
        tasks = list(Path("/proc/self/task").iterdir())
    except OSError:  # a system without /proc
        return
    for task in tasks:
        with contextlib.suppress(OSError):  # it ended meanwhile
            if (task / "comm").read_text().strip() == _NAME:
                fields = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
                yield task.name, (fields["State"][0], fields["voluntary_ctxt_switches"])
