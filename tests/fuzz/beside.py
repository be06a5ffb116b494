"""The job that runs meanwhile: its rate, its memory, and whether it is still exact."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from edldist.keys.folder import KeyFolder
from tests.fault.crew import Crew, crew
from tests.fault.harness import Role, wait_for

SAMPLES, BATCH = 4000, 20
LOOK_S = 0.2
MOST_GROWTH_BYTES = 192 << 20
"""Of a role's memory while it is fuzzed: floods hold some, and the heap keeps what it once had."""


@contextlib.contextmanager
def job(folder: Path, keys: bool, samples: int = SAMPLES) -> Iterator[Beside]:
    """A coordinator, two workers and a student, which trains until the end."""
    made: dict[str, object] = {"pass_s": 0.005}
    if keys:
        held = KeyFolder(folder / "keys")
        held.make()
        made["keys"] = held.path
    student = {"samples": samples, "batch_size": BATCH}
    with crew(folder / "job", 2, student, **made) as party:
        yield Beside(party)


class Beside:
    """What is seen of a job while others talk to its ports."""

    def __init__(self, party: Crew) -> None:
        self.party = party
        ready = json.loads((party.job.folder / "coordinator.json").read_text())
        self.coordinator: str = ready["address"]
        self.http: str = ready["http"]
        (self.student,) = [m.address for m in party.job.status().members if m.role == "student"]
        self._first: dict[str, int] = {}
        self._looked_at = 0.0
        self.peak: dict[str, int] = {}

    @property
    def roles(self) -> list[Role]:
        return [role for role in self.party.job.roles if role.alive]

    def look(self) -> None:
        """Note how much memory each role has.

        Raises:
            AssertionError: one has ended.
        """
        self._looked_at = time.monotonic()
        for role in self.party.job.roles:
            assert role.alive, f"{role.name} ended with {role.process.returncode}:\n{role.tail()}"
            held = psutil.Process(role.pid).memory_info().rss
            self._first.setdefault(role.name, held)
            self.peak[role.name] = max(self.peak.get(role.name, 0), held)

    def glance(self) -> None:
        """Look now and then."""
        if time.monotonic() - self._looked_at > LOOK_S:
            self.look()

    def settle(self) -> None:
        """From here on memory counts."""
        self._first.clear()
        self.peak.clear()
        self.look()

    def growth(self) -> dict[str, int]:
        """Bytes that each role has more than at first, at most."""
        return {name: self.peak[name] - first for name, first in self._first.items()}

    def taken(self) -> int:
        """Samples that the student has taken."""
        return sum(len(record["ids"]) for record in self.party.steps())

    def newcomer(self) -> None:
        """Whoever comes late gets in.

        Raises:
            AssertionError: it does not.
        """
        here = len(self.party.workers())
        self.party.hire(1)
        wait_for("a newcomer", lambda: len(self.party.job.teachers_here()) > here, 90)
