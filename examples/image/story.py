"""What becomes of the fleet, and when: the job's events go in, what to do comes out. Pure.

    two workers --> a third one is asked for --> a slow one joins --> one is killed --> the slow one leaves
    --> one

Each at a share of the steps, so that the story is the same on any machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["GUEST", "Act", "Join", "Kill", "Leave", "Scale", "Story"]

GUEST = "slow"


@dataclass(frozen=True)
class Scale:
    """Ask for so many workers, as with ``edldist scale``."""

    workers: int


@dataclass(frozen=True)
class Join:
    """Start a slow worker that nobody planned."""

    coordinator: str


@dataclass(frozen=True)
class Kill:
    """End a worker at once."""

    worker: str
    pid: int


@dataclass(frozen=True)
class Leave:
    """Ask the slow worker to leave."""


Act = Scale | Join | Kill | Leave

_CHAPTERS: tuple[tuple[float, type[Act], int], ...] = (
    (0.15, Scale, 3),
    (0.35, Join, 0),
    (0.55, Kill, 0),
    (0.75, Leave, 0),
    (0.85, Scale, 1),
)


class Story:
    """Acts at shares of the steps that this run has to do.

    Attributes:
        done: what was done so far, in order.
    """

    def __init__(self) -> None:
        self.done: list[Act] = []
        self._coordinator = ""
        self._pids: dict[str, int] = {}
        self._present: list[str] = []
        self._first: int | None = None
        self._next = 0

    def see(self, event: Mapping[str, Any]) -> list[Act]:
        """Take in one event of the job; what to do now."""
        name, worker = event.get("event"), str(event.get("id"))
        acts: list[Act] = []
        if name == "coordinator_started":
            self._coordinator = str(event["address"])
            acts = [Scale(2)]
        elif name in ("teacher_started", "teacher_restarted"):
            self._pids[worker] = int(event["pid"])
        elif name == "teacher_joined":
            self._present.append(worker)
        elif name in ("teacher_lost", "teacher_left"):
            self._present = [other for other in self._present if other != worker]
        elif name == "report" and "step" in event and "steps" in event:
            acts = self._at(int(event["step"]), int(event["steps"]))
        self.done += acts
        return acts

    def _at(self, step: int, steps: int) -> list[Act]:
        if self._first is None:
            self._first = step
        share = (step - self._first) / max(1, steps - self._first)
        acts: list[Act] = []
        while self._next < len(_CHAPTERS) and share >= _CHAPTERS[self._next][0]:
            _, kind, workers = _CHAPTERS[self._next]
            self._next += 1
            if kind is Scale:
                acts.append(Scale(workers))
            elif kind is Join:
                acts.append(Join(self._coordinator))
            elif kind is Leave:
                acts.append(Leave())
            elif launched := [worker for worker in self._present if worker in self._pids]:
                acts.append(Kill(launched[0], self._pids[launched[0]]))
        return acts
