"""How fast a run of the job went, and which workers came and went meanwhile, from its events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True)
class Change:
    """A worker came or went: when, in seconds of training, who, and what happened to it."""

    time_s: float
    worker: str
    what: Literal["killed", "lost", "restarted", "joined", "left"]

    @property
    def gained(self) -> int:
        """How many workers more there were."""
        return 1 if self.what in ("restarted", "joined") else -1


@dataclass(frozen=True)
class Throughput:
    """The samples per second at each of some moments, in seconds of training, and what moved them.

    ``workers``: how many there were at the beginning.
    """

    times_s: list[float]
    samples_per_s: list[float]
    workers: int
    changes: list[Change]


def throughput(events: Iterable[Mapping[str, Any]], batch_size: int, epoch_samples: int) -> Throughput:
    """The last run in a file of events.

    The rate at each quarter of a second is that of the second around it, from the steps that the loop
    reported.
    """
    steps: list[tuple[float, int]] = []
    changes: list[tuple[float, str, str]] = []
    crashed: set[str] = set()
    restarted: set[str] = set()
    for event in events:
        name, t, worker = event["event"], float(event["t"]), str(event.get("id"))
        if name == "job_started":
            steps, changes = [], []
        elif name == "report" and event.get("rank") == 0 and "step" in event:
            steps.append((t, int(event["step"])))
        elif name == "teacher_crashed":
            crashed.add(worker)
            changes.append((t, worker, "killed" if event.get("code") == -9 else "lost"))
        elif name == "teacher_restarted":
            restarted.add(worker)
        elif name == "teacher_joined":
            changes.append((t, worker, "restarted" if worker in restarted else "joined"))
        elif name == "teacher_left" or (name == "teacher_lost" and worker not in crashed):
            changes.append((t, worker, name.removeprefix("teacher_")))
    if len(steps) < 2:
        return Throughput([], [], 0, [])
    began, ended = steps[0][0], steps[-1][0]
    batches = -(-epoch_samples // batch_size)
    samples = [step // batches * epoch_samples + step % batches * batch_size for _, step in steps]
    moments = [t - began for t, _ in steps]
    times = np.arange(0, max(ended - began, 0.25), 0.25)
    low, high = np.clip(times - 0.5, 0, moments[-1]), np.clip(times + 0.5, 0, moments[-1])
    width = np.maximum(high - low, 1e-9)
    rates = (np.interp(high, moments, samples) - np.interp(low, moments, samples)) / width
    all_changes = [Change(t - began, worker, what) for t, worker, what in changes]  # type: ignore[arg-type]
    before = sum(change.gained for change in all_changes if change.time_s <= 0)
    inside = [change for change in all_changes if 0 < change.time_s < ended - began]
    return Throughput(times.tolist(), rates.tolist(), before, inside)
