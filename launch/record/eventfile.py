"""``events.jsonl``: one JSON object a line, appended to through full disks and kills."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

__all__ = ["EventFile", "json_text", "read_events"]

logger = logging.getLogger(__name__)

MOST_WAITING = 10_000


class EventFile:
    """Appends events; those that the disk does not take wait in memory until it does.

    Attributes:
        lost: events that were given up because too many waited.

    Raises (on opening):
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, most_waiting: int = MOST_WAITING) -> None:
        self.path = path
        self.lost = 0
        self._most_waiting = most_waiting
        self._waiting: deque[bytes] = deque()
        self._failing = False
        # Whether the file ends in the middle of a line: a killed run, or a full disk, left half of one.
        self._torn = not _ends_with_a_line(path)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def append(self, event: Mapping[str, Any]) -> None:
        """Add an event; it is in the file when this returns, unless the disk does not take it."""
        self._waiting.append(f"{json_text(event)}\n".encode())
        if len(self._waiting) > self._most_waiting:
            self._waiting.popleft()
            self.lost += 1
        self.write()

    def write(self) -> bool:
        """Write what waits; True if nothing waits any more."""
        try:
            while self._waiting:
                line = b"\n" * self._torn + self._waiting[0]
                written = os.write(self._descriptor, line)
                self._torn = written < len(line)
                if self._torn:
                    continue  # the next attempt says why
                self._waiting.popleft()
        except OSError as exc:
            if not self._failing:
                self._failing = True
                logger.warning("cannot write %s (%s): the job goes on, events wait", self.path, exc.strerror)
            return False
        if self._failing:
            self._failing = False
            logger.warning("%s is written again; %d events were lost", self.path, self.lost)
        return True

    def close(self) -> None:
        self.write()
        with contextlib.suppress(OSError):
            os.close(self._descriptor)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a file in order; half-written lines are skipped."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                event = json.loads(line)
            except (json.JSONDecodeError, RecursionError):
                continue
            if isinstance(event, dict) and isinstance(event.get("t"), int | float) and "event" in event:
                yield event


def json_text(value: Mapping[str, Any], indent: int | None = None) -> str:
    """A mapping as JSON: null for numbers that JSON cannot say, ``?`` for text that is no Unicode."""
    text = json.dumps(_finite(value), indent=indent, ensure_ascii=False, default=str)
    return text.encode(errors="replace").decode()


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _ends_with_a_line(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError), path.open("rb") as stream:
        if stream.seek(0, os.SEEK_END) > 0:
            stream.seek(-1, os.SEEK_END)
            return stream.read() == b"\n"
    return True
