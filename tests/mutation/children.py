"""Processes that try one mutant: forks that end, with all that they started, at their end or their time."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Children", "Ended", "Limit", "Progress", "die_with_parent", "own_place"]

MEMORY_BYTES = 8 << 30  # of address space, on top of what is in use
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_LOOK_S = 0.1
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Limit:
    """What a test may take: it hangs when it computes, or lasts, for longer than this."""

    cpu_s: float
    wall_s: float


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        code: its exit code; None if it was ended for taking too long, or by a signal.
        test: the one that ran last, -1 if none did.
        took_too_long: it was ended for that.
    """

    code: int | None
    test: int
    took_too_long: bool


def die_with_parent() -> None:
    """Let the kernel end this process when the thread ends that forked it."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@contextlib.contextmanager
def own_place() -> Iterator[None]:
    """A folder for all files of this process and its forks, which goes with them when it ends, or is ended.

    Unless by a SIGKILL.
    """
    _adopt_orphans()
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="mut-") as place:  # short: there are sockets below
        tempfile.tempdir = place
        try:
            yield
        finally:
            _end_orphans()
            tempfile.tempdir = None
            signal.signal(signal.SIGTERM, before)


def _adopt_orphans() -> None:
    """Become the parent of whatever this process's descendants leave behind."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def _end_orphans() -> None:
    """End all children, and those that become this process's as they end."""
    while left := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        for each in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(each), signal.SIGKILL)
            os.waitpid(int(each), 0)


class Progress:
    """What a child tells while it runs: its test, and what each has taken, in memory that both share."""

    def __init__(self) -> None:
        self._now = _shared(3)
        self._took = _shared(0)
        self.reset()

    def keep(self, tests: int) -> None:
        """From the next child on, keep what each of so many tests takes."""
        self._took = _shared(2 * tests)

    def reset(self) -> None:
        self._now[0], self._now[1], self._now[2] = -1.0, time.monotonic(), 0.0

    def begin(self, test: int) -> None:
        """In a child: a test begins."""
        self._now[1], self._now[2] = time.monotonic(), time.process_time()
        self._now[0] = test

    def end(self) -> None:
        """In a child: it has ended."""
        if 0 <= 2 * self.test < len(self._took):
            self._took[2 * self.test] = time.process_time() - self._now[2]
            self._took[2 * self.test + 1] = time.monotonic() - self._now[1]

    @property
    def test(self) -> int:
        return int(self._now[0])

    @property
    def since(self) -> tuple[float, float]:
        """When the test began: on the monotonic clock, and in the child's computing time."""
        return self._now[1], self._now[2]

    def took(self, test: int) -> Limit:
        """What a test took when it ran last, of those for which that is kept."""
        return Limit(self._took[2 * test], self._took[2 * test + 1])


def _shared(numbers: int) -> memoryview:
    return memoryview(mmap.mmap(-1, max(1, numbers) * 8)).cast("d")[:numbers]


class Children:
    """One child after the other. Whatever a child leaves behind becomes this process's, and is ended, too."""

    def __init__(self, show: bool) -> None:
        self._show = show
        self.progress = Progress()
        self._place = ""
        _adopt_orphans()

    def begin(self) -> int:
        """Fork. Returns 0 in the child, which has a place of its own for files, and writes nowhere.

        Raises:
            RuntimeError: this process has threads, whose locks nobody would open in the child.
        """
        if (threads := len(os.listdir("/proc/self/task"))) > 1:
            raise RuntimeError(f"{threads - 1} threads began while tests were imported: none may")
        self._place = tempfile.mkdtemp(prefix="m-")
        self.progress.reset()
        if pid := os.fork():
            return pid
        os.setsid()
        die_with_parent()
        os.environ["PYTEST_DEBUG_TEMPROOT"] = self._place
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, hard))
        if not self._show:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(nowhere, number)
        return 0

    def end(self, pid: int, limit: Callable[[int], Limit]) -> Ended:
        """Wait for a child, for as long as its tests may take, and end what is left of it."""
        handle = os.pidfd_open(pid)
        try:
            waiting = select.poll()
            waiting.register(handle, select.POLLIN)
            while not waiting.poll(_LOOK_S * 1000):
                if too_long := self._takes_too_long(pid, limit):
                    os.kill(pid, signal.SIGKILL)
                    break
            else:
                too_long = False
        finally:
            os.close(handle)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        _end_orphans()  # of whatever has left the child's process group before it ended
        shutil.rmtree(self._place, ignore_errors=True)
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        return Ended(None if too_long else code, self.progress.test, too_long)

    def _takes_too_long(self, pid: int, limit: Callable[[int], Limit]) -> bool:
        allowed = limit(self.progress.test)
        began, cpu_s = self.progress.since
        if time.monotonic() - began > allowed.wall_s:
            return True
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S - cpu_s > allowed.cpu_s
