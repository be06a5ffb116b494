"""Carry output into a log: ``python -I -S relay.py LOG`` reads standard input to its end.

A process whose output goes straight into a file fails with its own ``print`` when the disk is full, and hangs
where the file system hangs. This one stands between: it always reads, keeps up to 4 MiB while the file
takes nothing, loses what is beyond, and says in the log how much is missing. It ends when nobody can write to
its input any more, so it outlives whoever started it and has the last words of a job that is being ended.

This file is run by path and imports nothing of this package: it costs a bare interpreter's start.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from pathlib import Path

MOST_WAITING_BYTES = 4 << 20
_PIECE_BYTES = 1 << 16


_NOTE_EVERY_S = 0.2


def times_path(log: Path) -> Path:
    """Where is noted when which part of a log was written: lines of an offset in bytes and unix seconds.

    Noted of those in a folder ``logs``, as a job has it; other folders get no files but their log.
    """
    return log.parent / ".times" / log.name


class Log:
    """A file that is appended to; what it does not take is counted, and named once it takes more."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._missing_bytes = 0
        self._why = ""
        self._noted_at = -1.0

    def write(self, data: bytes) -> None:
        """Append ``data``, as far as the disk takes it."""
        try:
            if self._missing_bytes:
                note = f"\n[{self._missing_bytes} bytes of output are missing here: {self._why}]\n"
                self._append(note.encode(errors="replace"))
                self._missing_bytes = 0
            while data:
                data = data[self._append(data) :]
        except OSError as exc:
            self.missed(len(data), exc.strerror or str(exc))

    def missed(self, size: int, why: str) -> None:
        """So many bytes will never be written."""
        self._missing_bytes += size
        self._why = why

    def _append(self, data: bytes) -> int:
        if self._descriptor is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o644)
        self._note()
        return os.write(self._descriptor, data)

    def _note(self) -> None:
        """Note when what comes next is written, for who reads several logs; a disk may take the log alone."""
        now = time.monotonic()
        place = times_path(Path(self._path))
        if place.parent.parent.name != "logs" or 0 <= self._noted_at > now - _NOTE_EVERY_S:
            return
        self._noted_at = now
        try:
            place.parent.mkdir(exist_ok=True)
            assert self._descriptor is not None
            with place.open("ab") as stream:
                stream.write(f"{os.fstat(self._descriptor).st_size} {time.time():.3f}\n".encode())
        except OSError:
            return


class Relay:
    """Takes pieces of output at once, and hands them to a log in a thread of its own."""

    def __init__(self, log: Log, most_waiting_bytes: int = MOST_WAITING_BYTES) -> None:
        self._log = log
        self._most_waiting_bytes = most_waiting_bytes
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped_bytes = 0
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def take(self, data: bytes) -> None:
        with self._changed:
            if self._waiting_bytes + len(data) > self._most_waiting_bytes:
                self._dropped_bytes += len(data)
                return
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self._changed.notify()

    def end(self) -> None:
        """Wait until everything that was taken is in the log, or lost."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _carry(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._ended):
                    self._changed.wait()
                if not self._waiting:
                    break
                data = self._waiting.popleft()
                self._waiting_bytes -= len(data)
                dropped, self._dropped_bytes = self._dropped_bytes, 0
            self._log.write(data)
            if dropped:
                self._log.missed(dropped, "the disk was too slow")
        self._log.write(b"")


def main(path: str) -> None:
    relay = Relay(Log(path))
    while data := os.read(0, _PIECE_BYTES):
        relay.take(data)
    relay.end()


if __name__ == "__main__":
    main(sys.argv[1])
