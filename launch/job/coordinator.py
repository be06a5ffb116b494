"""The coordinator of a job on this machine: one process, started again at the same address."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from edldist.clock import Clock
from edldist.coordinator.course.history_file import HISTORY
from edldist.coordinator.course.stage_file import STAGES_FILE
from edldist_launch.job.changes import note_change
from edldist_launch.job.stopped import Stopped
from edldist_launch.local.child import Child, describe_exit
from edldist_launch.local.fleet import Fleet
from edldist_launch.plan.plan import Plan
from edldist_launch.process.interrupts import Interrupts
from edldist_launch.record.folder import RecordFolder
from edldist_launch.view.observers import Observers

__all__ = ["CoordinatorProcess"]

START_S = 30.0
LOOK_S = 0.02


class CoordinatorProcess:
    """Starts it, finds out where it listens, and starts it again there when it ends. Main thread only.

    Attributes:
        address: ``tcp://host:port``, empty until it listens.
    """

    def __init__(
        self, folder: RecordFolder, environment: Mapping[str, str], observers: Observers, clock: Clock
    ) -> None:
        self._folder = folder
        self._environment = environment
        self._observers = observers
        self._clock = clock
        self._plan: Plan | None = None
        self._http = "127.0.0.1:0"
        self._fleet = Fleet(self._make, ["0"], keep=True, serve=True)
        self.address = ""

    @property
    def fleet(self) -> Fleet:
        return self._fleet

    @property
    def children(self) -> Sequence[Child]:
        return self._fleet.children

    def start(self, plan: Plan, interrupts: Interrupts) -> None:
        """Start it, and return when it listens.

        Raises:
            Stopped: it did not start, or somebody interrupts.
        """
        self._plan = plan
        self.forget_address_file()
        self._fleet.start(self._clock.monotonic())
        child = self._fleet.children[0]
        deadline = self._clock.monotonic() + START_S
        while not self._listens():
            code = child.poll()
            if code is not None and not interrupts.come_as(code):
                raise Stopped("failed", f"the coordinator did not start ({describe_exit(code)})", child)
            if interrupts.asked:
                raise Stopped("interrupted", "stopped while starting")
            if self._clock.monotonic() > deadline:
                raise Stopped("failed", f"the coordinator was not ready within {START_S:.0f} s", child)
            time.sleep(LOOK_S)
        # It could be bound once: should its port be taken when it is started again, that may pass.
        self._fleet.seen([child.id])

    def tick(self, now: float) -> None:
        """Start it again if it is due."""
        for change in self._fleet.tick(now):
            note_change(self._observers, "coordinator", change)

    def forget_address_file(self) -> None:
        with contextlib.suppress(OSError):
            self._address_file.unlink(missing_ok=True)

    @property
    def _address_file(self) -> Path:
        return self._folder.path / ".coordinator.json"

    def _listens(self) -> bool:
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            ready = json.loads(self._address_file.read_text(encoding="utf-8"))
            self.address, self._http = str(ready["address"]), str(ready["http"])
            self._observers.say(f"coordinator at {self.address}, dashboard at http://{self._http}/")
            self.forget_address_file()
            return True
        return False

    def _make(self, name: str, attempt: int) -> Child:
        if self._plan is None:
            raise RuntimeError("start the coordinator with a plan")
        # Started again it listens where the first one did: nobody waits to be told, no disk is in the way.
        ready = None if self.address else self._address_file
        bind = self.address or "tcp://127.0.0.1:0"
        history, stages = self._folder.path / HISTORY, self._folder.path / STAGES_FILE
        command = self._plan.coordinator_command(bind, self._http, ready, history, stages)
        return Child("coordinator", command, self._environment, self._folder.log_path("coordinator", name))
