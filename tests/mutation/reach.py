"""Which tests run which lines of some files, as a table that all forks of this process write into."""

from __future__ import annotations

import mmap
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, Protocol

__all__ = ["Calls", "Reach"]


class _Trace(Protocol):
    def __call__(self, frame: FrameType, event: str, argument: Any) -> _Trace | None: ...


class _Tracing:
    """Calls ``_trace`` for what all threads of this process do that begins from here on."""

    def __enter__(self) -> None:
        threading.settrace(self._trace)
        sys.settrace(self._trace)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]

    def _trace(self, frame: FrameType, event: str, argument: Any) -> _Trace | None:
        raise NotImplementedError


class Calls(_Tracing):
    """The code of some files that is called."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = frozenset(paths)
        self.code: set[CodeType] = set()

    def _trace(self, frame: FrameType, event: str, argument: Any) -> _Trace | None:
        if frame.f_code.co_filename in self._paths:
            self.code.add(frame.f_code)
        return None


class Reach(_Tracing):
    """A row for each test, with a byte for each line of the files.

    The memory is shared: a fork of this process, or of its forks, tells here what it runs.
    """

    def __init__(self, paths: Sequence[str], tests: int) -> None:
        self._first: dict[str, int] = {}
        columns = 0
        for path in paths:
            self._first[path] = columns
            columns += len(Path(path).read_text().splitlines()) + 2
        self._columns = columns
        self._table = mmap.mmap(-1, max(1, tests * columns))
        self.test = 0  # the one that runs now

    def _trace(self, frame: FrameType, event: str, argument: Any) -> _Trace | None:
        if (first := self._first.get(frame.f_code.co_filename)) is None:
            return None
        row = self.test * self._columns + first
        table = self._table

        def local(frame: FrameType, event: str, argument: Any) -> _Trace | None:
            table[row + frame.f_lineno] = 1
            return local

        return local(frame, event, argument)

    def tests(self, path: str, lines: range, of: Mapping[int, float]) -> list[int]:
        """Those of some tests that run one of some lines."""
        found = []
        for test in of:
            row = test * self._columns + self._first[path]
            if any(self._table[row + lines.start : row + lines.stop]):
                found.append(test)
        return found
