"""Seeds of random faults against a loader of 100,000 samples: ``python -m tests.fault.random_faults``.

With ``--store`` it is two epochs of half as many samples, whose labels are kept: the second one asks nobody.

Kill, freeze, drain, join and the coordinator's death, about one a second. Each seed must be exact,
and no gap between batches may exceed one second while at least two healthy workers remain (while a
worker is frozen: the heartbeat TTL and one second). Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from edldist.errors import EdlDistError
from tests.fault.harness import FaultJob, Role, assert_exact, wait_for

SAMPLES, BATCH, STEP_S = 100_000, 100, 0.015
TTL_S = 1.5
FLEET = 4
MEAN_S = 1.0
FEWEST_HEALTHY = 2


@dataclass
class Outcome:
    """What one seed did."""

    seed: int
    faults: Counter[str]
    longest_gap_s: float
    violations: list[str]
    stats: dict[str, float]


class Fleet:
    """Workers for all seeds, and when each of them was healthy. Main thread only."""

    def __init__(self, job: FaultJob) -> None:
        self.job = job
        self.coordinator = job.coordinator()
        self.made = 0
        self.starting: list[Role] = []
        self.healthy: list[Role] = []
        self.frozen: list[tuple[float, Role]] = []
        self.history: list[tuple[float, int]] = []  # (unix time, healthy workers from then on)
        self.freezes: list[float] = []
        self.coordinator_back_at: float | None = None

    def hire(self) -> None:
        self.made += 1
        self.starting.append(self.job.teacher(f"t-{self.made}", batch_size=50, model_version="1"))

    def note(self) -> None:
        self.history.append((time.time(), len(self.healthy)))

    def look(self) -> None:
        """Thaw, replace and count."""
        now = time.monotonic()
        for at, role in list(self.frozen):
            if at <= now:
                self.frozen.remove((at, role))
                with contextlib.suppress(psutil.Error, AssertionError):
                    role.send(signal.SIGCONT)
                    self.starting.append(role)
        if self.coordinator_back_at is not None and now >= self.coordinator_back_at:
            self.coordinator_back_at = None
            self.coordinator = self.job.coordinator()
        with contextlib.suppress(EdlDistError):
            serving = {
                member.id
                for member in self.job.status().members
                if member.role == "teacher" and member.stats.get("students") and member.silent_s < TTL_S / 2
            }
            for role in [role for role in self.starting if role.name in serving]:
                self.starting.remove(role)
                self.healthy.append(role)
                self.note()
        self.starting = [role for role in self.starting if role.alive]
        if any(not role.alive for role in self.healthy):
            self.healthy = [role for role in self.healthy if role.alive]
            self.note()
        if len(self.healthy) + len(self.starting) + len(self.frozen) < FLEET:
            self.hire()

    def unhealthy(self, role: Role) -> None:
        self.healthy.remove(role)
        self.note()

    # --- faults -------------------------------------------------------------------------------

    def fire(self, chance: random.Random) -> str | None:
        faults: list[Callable[[random.Random], bool]] = [
            *(self.kill, self.kill, self.freeze, self.drain, self.join, self.kill_coordinator)
        ]
        fault = chance.choice(faults)
        return fault.__name__ if fault(chance) else None

    def _victim(self, chance: random.Random) -> Role | None:
        return chance.choice(self.healthy) if len(self.healthy) > FEWEST_HEALTHY else None

    def kill(self, chance: random.Random) -> bool:
        role = self._victim(chance)
        if role is None:
            return False
        self.unhealthy(role)
        role.kill()
        return True

    def freeze(self, chance: random.Random) -> bool:
        role = self._victim(chance)
        if role is None:
            return False
        self.unhealthy(role)
        self.freezes.append(time.time())
        role.send(signal.SIGSTOP)
        self.frozen.append((time.monotonic() + chance.uniform(0.3, 4.0), role))
        return True

    def drain(self, chance: random.Random) -> bool:
        role = self._victim(chance)
        if role is None:
            return False
        self.unhealthy(role)
        role.send(signal.SIGTERM)
        return True

    def join(self, chance: random.Random) -> bool:
        if len(self.healthy) + len(self.starting) > FLEET:
            return False
        self.hire()
        return True

    def kill_coordinator(self, chance: random.Random) -> bool:
        if self.coordinator_back_at is not None or not self.coordinator.alive:
            return False
        self.coordinator.kill()
        self.coordinator_back_at = time.monotonic() + chance.uniform(0.1, 2.0)
        return True


def run_seed(fleet: Fleet, seed: int, store: bool = False) -> Outcome:
    """One student over 100,000 samples, under fire from its first step to its last."""
    chance = random.Random(seed)
    epochs = 2 if store else 1
    output = fleet.job.folder / f"seed-{seed}"
    student = fleet.job.script(
        f"student-{seed}",
        output=output,
        env={"EDLDIST_STORE": str(output / "kept")} if store else None,
        samples=SAMPLES // epochs,
        epochs=epochs,
        batch_size=BATCH,
        step_s=STEP_S,
        heartbeat_ttl_s=TTL_S,
    )
    wait_for("steps", lambda: fleet.look() or fleet.job.steps(output) or not student.alive, 60)
    began = time.time()
    wait_for("a healthy fleet", lambda: fleet.look() or len(fleet.healthy) >= FLEET - 1, 60)
    fired: Counter[str] = Counter()
    next_fault = time.monotonic()
    while student.alive:
        fleet.look()
        if time.monotonic() >= next_fault:
            fault = fleet.fire(chance)
            if fault is not None:
                fired[fault] += 1
                next_fault = time.monotonic() + chance.expovariate(1 / MEAN_S)
        time.sleep(0.02)
    done = fleet.job.finish(student, output=output)
    assert_exact(done, SAMPLES // epochs, BATCH, epochs)
    times = [record["t"] for record in fleet.job.steps(output) if record["t"] >= began]
    violations = []
    if store and (found := done["stats"]["store_hits"]) != SAMPLES // 2:
        violations.append(f"labels of {found} samples were found in the second epoch")
    for start, end in zip(times, times[1:], strict=False):
        allowed_s = TTL_S + 1.0 if any(start - TTL_S < t < end for t in fleet.freezes) else 1.0
        if end - start > allowed_s and _fewest(fleet.history, start, end) >= FEWEST_HEALTHY:
            violations.append(f"{end - start:.2f} s without a batch (allowed: {allowed_s:.1f})")
    longest = max((b - a for a, b in zip(times, times[1:], strict=False)), default=0.0)
    return Outcome(seed, fired, longest, violations, done["stats"])


def _fewest(history: list[tuple[float, int]], start: float, end: float) -> int:
    """Fewest healthy workers at any moment between two times."""
    before = [count for t, count in history if t <= start][-1:]
    return min(before + [count for t, count in history if start < t < end], default=0)


def run(folder: Path, seeds: range, store: bool = False) -> list[Outcome]:
    """Run seeds after one another on one fleet, with a store of labels for each or without."""
    outcomes = []
    job = FaultJob(folder, model="tests.fault.teachers:steady", pass_s=0.01)
    try:
        fleet = Fleet(job)
        for _ in range(FLEET):
            fleet.hire()
        for seed in seeds:
            outcome = run_seed(fleet, seed, store)
            outcomes.append(outcome)
            shown = {key: outcome.stats[key] for key in ("requeued", "duplicates", "hedged")}
            print(
                f"seed {seed:2d}: exact, {sum(outcome.faults.values())} faults {dict(outcome.faults)}, "
                f"longest gap {outcome.longest_gap_s:.2f} s, {shown} {outcome.violations or ''}",
                flush=True,
            )
    finally:
        job.close()
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--store", action="store_true", help="keep the labels, and find them again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edldist-faults-") as folder:
        outcomes = run(Path(folder), range(options.first, options.first + options.seeds), options.store)
    return 1 if any(outcome.violations for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
