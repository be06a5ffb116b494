"""Standard output and error that never fail or block whoever writes to them.

A job must not end because its terminal went away (EIO), its reader closed the pipe (EPIPE) or stopped
reading, the disk under a redirected output is full, or the locale's encoding lacks a character. Commands
that work for hours install these streams; a command whose whole purpose is its output does not.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
import time
from typing import Any

__all__ = ["SteadyOutput", "install_steady_streams"]

PATIENCE_S = 1.0
"""How long a write waits for a reader that has stopped reading, before it is given up."""
MAY_PASS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOBUFS, errno.ENOMEM)
_PIECE_BYTES = min(select.PIPE_BUF, 4096)  # a pipe that polls as writable takes that much without blocking


class SteadyOutput(io.RawIOBase):
    """A file descriptor that takes everything, and loses what cannot be written.

    What is lost is counted in ``lost_bytes``. A reader that stopped reading is waited for once; later writes
    are lost at once until it reads again. After an error that cannot pass (the terminal or the pipe is
    gone) nothing is written any more. For any thread: a line up to ``PIPE_BUF`` bytes stays whole.
    """

    def __init__(self, descriptor: int, patience_s: float = PATIENCE_S) -> None:
        self._descriptor = descriptor
        self._patience_s = patience_s
        self._stalled = False
        self._gone = False
        self.lost_bytes = 0

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        """Write what can be written; always the length of ``data``."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest and not self._gone and self._ready():
            try:
                rest = rest[os.write(self._descriptor, rest[:_PIECE_BYTES]) :]
            except BlockingIOError:
                continue
            except OSError as exc:
                self._gone = exc.errno not in MAY_PASS
                break
        self.lost_bytes += len(rest)
        return size

    def _ready(self) -> bool:
        """Whether the reader takes something now, or within the patience if it was reading so far."""
        deadline = time.monotonic() + (0.0 if self._stalled else self._patience_s)
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            if events := poll.poll(1000 * left_s):
                self._gone = bool(events[0][1] & select.POLLNVAL)
                self._stalled = False
                return not self._gone
            if time.monotonic() >= deadline:
                self._stalled = True
                return False


def install_steady_streams() -> None:
    """Let ``sys.stdout`` and ``sys.stderr`` of this process take everything from now on."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            descriptor = stream.fileno()
        except (AttributeError, OSError, ValueError):
            continue  # closed from the start, or a stand-in of a test's: nothing to write to
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
        steady = io.TextIOWrapper(
            SteadyOutput(descriptor),  # type: ignore[type-var]  # unbuffered, as with python -u
            encoding=stream.encoding,
            errors="backslashreplace" if name == "stderr" else "replace",
            write_through=True,
        )
        setattr(sys, name, steady)
