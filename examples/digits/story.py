"""What happens in the demo, and when: the job's events go in, what to do comes out. Pure.

waiting --> said whom --> killed --> said who joins --> started
             (kill when the job has recorded it)   (start when the job has recorded it)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

KILL_AT = 0.25
JOIN_AT = 0.35
"""Shares of the steps that this run has to do. A new process needs some seconds to become a worker."""


@dataclass(frozen=True)
class Say:
    """Put a line into the job's record, and on its screen."""

    coordinator: str
    text: str


@dataclass(frozen=True)
class Kill:
    """End a worker at once."""

    worker: str
    pid: int


@dataclass(frozen=True)
class Join:
    """Start a worker that nobody planned."""

    coordinator: str


@dataclass(frozen=True)
class Leave:
    """Ask the worker that joined to leave."""


Act = Say | Kill | Join | Leave


class Story:
    """Kills one of several workers, then lets another join.

    Args:
        guest: what the joining worker is called.

    Attributes:
        killed: the worker that was killed, None before.
        guest_joined: whether the other has registered.
    """

    def __init__(self, guest: str) -> None:
        self.guest = guest
        self.killed: str | None = None
        self.guest_joined = False
        self._coordinator = ""
        self._pids: dict[str, int] = {}
        self._present: list[str] = []
        self._first: int | None = None
        self._announced: dict[str, Kill | Join] = {}
        self._kill_said = self._join_said = False

    def see(self, event: Mapping[str, Any]) -> list[Act]:
        """Take in one event of the job; what to do now."""
        name = event.get("event")
        if name == "coordinator_started":
            self._coordinator = str(event["address"])
        elif name in ("teacher_started", "teacher_restarted"):
            self._pids[str(event["id"])] = int(event["pid"])
        elif name == "teacher_joined":
            self._present.append(str(event["id"]))
            self.guest_joined |= event["id"] == self.guest
        elif name in ("teacher_lost", "teacher_left"):
            self._present = [worker for worker in self._present if worker != event["id"]]
        elif name == "remark" and (act := self._announced.pop(str(event.get("text")), None)):
            if isinstance(act, Kill):
                self.killed = act.worker
            return [act]
        elif name == "report" and "step" in event and "steps" in event:
            return self._at(int(event["step"]), int(event["steps"]))
        elif name == "student_stopped":
            return [Leave()]
        return []

    def _at(self, step: int, steps: int) -> list[Act]:
        if self._first is None:
            self._first = step
        done = (step - self._first) / max(1, steps - self._first)
        launched = [worker for worker in self._present if worker in self._pids]
        if not self._kill_said and done >= KILL_AT and len(launched) > 1:
            self._kill_said = True
            victim = launched[0]
            text = f"demo: step {step} of {steps}: kill -9 {self._pids[victim]}, which is worker {victim}"
            return [self._say(text, Kill(victim, self._pids[victim]))]
        if self.killed is not None and not self._join_said and done >= JOIN_AT:
            self._join_said = True
            text = f"demo: step {step} of {steps}: another worker, {self.guest}, is started by hand"
            return [self._say(text, Join(self._coordinator))]
        return []

    def _say(self, text: str, act: Kill | Join) -> Say:
        self._announced[text] = act
        return Say(self._coordinator, text)
