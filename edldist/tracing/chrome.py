"""Events of the Chrome trace format, which Perfetto and chrome://tracing read. Pure.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ChromeEvents"]

Event = dict[str, Any]


class ChromeEvents:
    """Collects the events of one trace, whose processes are numbered from 1.

    Attributes:
        events: in the order in which they were added.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._flows = 0

    def process(self, pid: int, name: str, labels: str) -> None:
        """Name a process; they are shown in the order of their numbers."""
        self._meta("process_name", pid, 0, {"name": name})
        self._meta("process_labels", pid, 0, {"labels": labels})
        self._meta("process_sort_index", pid, 0, {"sort_index": pid})

    def row(self, pid: int, tid: int, name: str) -> None:
        """Name a row of a process; they are shown in the order of their numbers."""
        self._meta("thread_name", pid, tid, {"name": name})
        self._meta("thread_sort_index", pid, tid, {"sort_index": tid})

    def span(
        self, pid: int, tid: int, name: str, start_us: float, end_us: float, args: Mapping[str, Any]
    ) -> None:
        """Something that took a while; spans of one row are within each other or apart."""
        place = {"pid": pid, "tid": tid, "ts": _round(start_us), "dur": _round(end_us - start_us)}
        self.events.append({"ph": "X", "name": name, "cat": "edldist", **place, "args": dict(args)})

    def moment(self, pid: int, tid: int, name: str, at_us: float, args: Mapping[str, Any]) -> None:
        """Something that took no time."""
        place = {"pid": pid, "tid": tid, "ts": _round(at_us)}
        self.events.append({"ph": "i", "s": "t", "name": name, "cat": "edldist", **place, "args": dict(args)})

    def life(
        self,
        pid: int,
        kind: str,
        key: str,
        name: str,
        start_us: float,
        end_us: float,
        args: Mapping[str, Any],
    ) -> None:
        """Something that overlaps others of its kind, and what lies within has the same key."""
        place = {"cat": kind, "id": key, "pid": pid, "tid": 0, "name": name}
        self.events.append({"ph": "b", "ts": _round(start_us), **place, "args": dict(args)})
        self.events.append({"ph": "e", "ts": _round(end_us), **place})

    def flow(self, kind: str, stops: list[tuple[int, int, float]]) -> None:
        """An arrow through spans: process, row and a time within the span, of two or more."""
        if len(stops) < 2:
            return
        self._flows += 1
        for number, (pid, tid, at_us) in enumerate(stops):
            phase = "s" if number == 0 else ("f" if number == len(stops) - 1 else "t")
            event = {"ph": phase, "name": kind, "cat": kind, "id": self._flows}
            event |= {"pid": pid, "tid": tid, "ts": _round(at_us)}
            self.events.append(event | ({"bp": "e"} if phase == "f" else {}))

    def _meta(self, name: str, pid: int, tid: int, args: Mapping[str, Any]) -> None:
        self.events.append({"ph": "M", "name": name, "pid": pid, "tid": tid, "ts": 0, "args": dict(args)})


def _round(us: float) -> float:
    return round(us, 3)
