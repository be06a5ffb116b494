"""The way of a child's output into its log, past whatever the disk does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from edldist.secret_names import helper_environment

__all__ = ["LogPipe"]

_RELAY = Path(__file__).with_name("relay.py")
_END_S = 2.0
_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class LogPipe:
    """A pipe into a log file, carried by a process of its own (``relay``). Main thread only.

    That process ends when all writers have, not when this one does: a launcher that is killed does not take
    their standard output from children that are saving a checkpoint. For the same reason it heeds no
    signal that asks a whole tree of processes to end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_end, self.write_end = os.pipe()
        try:
            self._relay = self._start()
        except BaseException:
            self.started()
            os.close(self._read_end)
            raise

    def started(self) -> None:
        """Whoever writes has the end to write to: close ours."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def look_after(self) -> None:
        """Start the carrier again if somebody killed it: without a reader, the writers would fail."""
        if self._relay.poll() is not None:
            self._relay = self._start()

    def finish(self) -> None:
        """The writers have ended: wait until the log has their last words, for two seconds at most."""
        self.started()
        with contextlib.suppress(subprocess.TimeoutExpired):  # a disk that hangs, or a writer that got away
            self._relay.wait(_END_S)
        os.close(self._read_end)

    def _start(self) -> subprocess.Popen[bytes]:
        # Signals that are blocked here stay blocked there, from its first instruction on.
        former = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKING)
        try:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", str(_RELAY), str(self._path)],
                env=helper_environment(os.environ),
                stdin=self._read_end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, former)
