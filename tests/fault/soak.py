"""Seeded random faults of every kind, over two students and a churning fleet: ``make soak``.

Two students (one of up to three nodes, one alone) train on the labels of one fleet while workers,
ranks, nodes and the coordinator are killed, frozen, drained, slowed and replaced, half of the time
under CPU load. At the end both finish their epoch in peace and prove that the surviving model saw
every sample exactly once an epoch. Exit code 1 on any loss.

Figures, for each student and in all: *goodput* is the share of computed steps that survived (a step
that a restart took back was computed in vain), and the share of wall time without an interruption
of more than a second; *recovery* is the length of such interruptions.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from edldist.errors import EdlDistError
from tests.fault.harness import FaultJob, Role

TEACHERS = 3
MOST_TEACHERS = 4
NODES = 2
MOST_NODES = 3
INTERRUPTION_S = 1.0
LOAD_PERIOD_S = 60.0
SAMPLES, BATCH, STEP_S = 4000, 20, 0.05


@dataclass
class Student:
    """One training job of the soak: its nodes come and go, its folder stays."""

    name: str
    nodes: int
    most: int
    output: Path
    roles: list[Role] = field(default_factory=list)
    started: int = 0

    @property
    def alive(self) -> list[Role]:
        return [role for role in self.roles if role.alive]


class Soak:
    """Fires faults and replaces what they took. Main thread only."""

    def __init__(self, job: FaultJob, mean_s: float, seed: int, resize: str) -> None:
        self.job = job
        self.resize = resize
        self.mean_s = mean_s
        self.random = random.Random(seed)
        self.fired: Counter[str] = Counter()
        self.until = job.folder / "until"
        self.coordinator = job.coordinator()
        self.teachers: list[Role] = []
        self.students = [
            Student("student-a", NODES, MOST_NODES, job.folder / "a"),
            Student("student-b", 1, 1, job.folder / "b"),
        ]
        self.made = 0
        self.frozen: list[tuple[float, psutil.Process]] = []
        self.coming: list[tuple[float, Callable[[], None]]] = []
        self.burners: list[subprocess.Popen[bytes]] = []

    # --- the fleet --------------------------------------------------------------------------

    def add_teacher(self) -> None:
        self.made += 1
        role = self.job.teacher(f"t-{self.made}", batch_size=self.random.choice([5, 10, 20]))
        self.teachers.append(role)

    def add_node(self, student: Student) -> None:
        student.started += 1
        role = self.job.student(
            f"{student.name}-{student.started}",
            nnodes=f"1:{student.most}" if student.most > 1 else "1",
            run_id=student.name,
            output=student.output,
            env={"EDLDIST_RESIZE": self.resize},
            samples=SAMPLES,
            batch_size=BATCH,
            step_s=STEP_S,
            until=self.until,
        )
        student.roles.append(role)

    def later(self, action: Callable[[], None], low_s: float = 1.0, high_s: float = 8.0) -> None:
        self.coming.append((time.monotonic() + self.random.uniform(low_s, high_s), action))

    def keep_up(self) -> None:
        """Do what is due, and replace what is gone."""
        now = time.monotonic()
        due = [action for at, action in self.coming if at <= now]
        self.coming = [(at, action) for at, action in self.coming if at > now]
        for action in due:
            action()
        for at, process in list(self.frozen):
            if at <= now:
                self.frozen.remove((at, process))
                with contextlib.suppress(psutil.Error):
                    process.resume()
        for role in [role for role in self.teachers if not role.alive]:
            self.teachers.remove(role)
            if len(self.teachers) + 1 <= TEACHERS:
                self.later(self.add_teacher)
        for student in self.students:
            gone = [role for role in student.roles if not role.alive]
            for role in gone:
                student.roles.remove(role)
                if role.process.returncode == 0:
                    continue
                if role.process.returncode == 1:
                    raise AssertionError(f"{role.name} failed:\n{role.tail()}")
                if len(student.roles) < student.nodes:
                    self.later(lambda student=student: self.add_node(student), 0.5, 5.0)
        if not self.coordinator.alive and not self.coming_back:
            self.coming_back = True
            self.later(self.restart_coordinator, 0.2, 4.0)

    coming_back = False

    def restart_coordinator(self) -> None:
        self.coordinator = self.job.coordinator()
        self.coming_back = False

    def load(self, on: bool) -> None:
        """Keep every core busy, or stop it."""
        if on and not self.burners:
            burn = "while True: pass"
            self.burners = [
                subprocess.Popen([sys.executable, "-c", burn]) for _ in range(os.cpu_count() or 1)
            ]
        elif not on:
            for burner in self.burners:
                burner.kill()
                burner.wait()
            self.burners = []

    # --- faults -----------------------------------------------------------------------------

    def fire(self) -> None:
        """One random fault; what cannot be hit now is drawn again."""
        kinds: list[tuple[int, Callable[[], bool]]] = [
            (4, self.kill_teacher),
            (2, self.freeze_teacher),
            (2, self.drain_teacher),
            (1, self.join_teacher),
            (1, self.model_fault),
            (2, self.kill_coordinator),
            (2, self.kill_rank),
            (1, self.freeze_rank),
            (1, self.kill_node),
            (1, self.preempt_node),
            (1, self.join_node),
        ]
        weights = [weight for weight, _ in kinds]
        for _ in range(20):
            fault = self.random.choices([f for _, f in kinds], weights)[0]
            if fault():
                self.fired[fault.__name__] += 1
                return

    def _teacher(self) -> Role | None:
        here = [role for role in self.teachers if role.alive]
        return self.random.choice(here) if len(here) > 1 else None

    def _node(self) -> tuple[Student, Role] | None:
        student = self.random.choice(self.students)
        return (student, self.random.choice(student.alive)) if student.alive else None

    def kill_teacher(self) -> bool:
        role = self._teacher()
        if role is None:
            return False
        role.kill()
        return True

    def freeze_teacher(self) -> bool:
        role = self._teacher()
        if role is None:
            return False
        role.send(signal.SIGSTOP)
        self.frozen.append((time.monotonic() + self.random.uniform(0.5, 6.0), psutil.Process(role.pid)))
        return True

    def drain_teacher(self) -> bool:
        role = self._teacher()
        if role is None:
            return False
        role.send(signal.SIGTERM)
        return True

    def join_teacher(self) -> bool:
        if len(self.teachers) >= MOST_TEACHERS:
            return False
        self.add_teacher()
        return True

    def model_fault(self) -> bool:
        if self._teacher() is None:
            return False
        self.job.ask(self.random.choice(["crash", "segfault", "oom_kill", "raise"]))
        return True

    def kill_coordinator(self) -> bool:
        if not self.coordinator.alive:
            return False
        self.coordinator.kill()
        return True

    def _rank(self) -> psutil.Process | None:
        node = self._node()
        ranks = node[1].ranks() if node else []
        return self.random.choice(ranks) if ranks else None

    def kill_rank(self) -> bool:
        rank = self._rank()
        if rank is None:
            return False
        with contextlib.suppress(psutil.Error):
            rank.kill()
            return True
        return False

    def freeze_rank(self) -> bool:
        rank = self._rank()
        if rank is None:
            return False
        with contextlib.suppress(psutil.Error):
            rank.suspend()
            self.frozen.append((time.monotonic() + self.random.uniform(1.0, 8.0), rank))
            return True
        return False

    def kill_node(self) -> bool:
        node = self._node()
        if node is None:
            return False
        node[1].kill_tree()
        return True

    def preempt_node(self) -> bool:
        node = self._node()
        if node is None or len(node[0].alive) < 2:
            return False
        node[1].send(signal.SIGTERM)
        return True

    def join_node(self) -> bool:
        student = self.students[0]
        if len(student.alive) >= student.most:
            return False
        self.add_node(student)
        return True

    # --- the run ----------------------------------------------------------------------------

    def run(self, minutes: float, load: str) -> None:
        for _ in range(TEACHERS):
            self.add_teacher()
        for student in self.students:
            student.output.mkdir(parents=True, exist_ok=True)
            for _ in range(student.nodes):
                self.add_node(student)
        for student in self.students:
            self.job.await_step(5, timeout_s=180, output=student.output)
        began = time.monotonic()
        next_fault = began + self.random.expovariate(1 / self.mean_s)
        told = began
        while (now := time.monotonic()) < began + 60 * minutes:
            self.load(load == "on" or (load == "half" and int((now - began) / LOAD_PERIOD_S) % 2 == 1))
            self.keep_up()
            if now >= next_fault:
                self.fire()
                next_fault = now + self.random.expovariate(1 / self.mean_s)
            if now >= told + 60:
                told = now
                self.tell(now - began)
            time.sleep(0.05)
        self.load(False)
        self.until.touch()
        deadline = time.monotonic() + 300
        while not all((student.output / "done.json").exists() for student in self.students):
            assert time.monotonic() < deadline, "the students did not finish their epoch in peace"
            self.keep_up()
            time.sleep(0.1)

    def tell(self, elapsed_s: float) -> None:
        with contextlib.suppress(EdlDistError):
            steps = [
                max((r.get("step", 0) for r in self.job.steps(s.output)), default=0) for s in self.students
            ]
            print(
                f"{elapsed_s / 60:5.1f} min  faults {sum(self.fired.values()):4d}  steps {steps}", flush=True
            )


def account(job: FaultJob, student: Student) -> dict[str, float]:
    """The figures of one student, from the books of its ranks."""
    done = json.loads((student.output / "done.json").read_text())
    records = [record for record in job.steps(student.output) if "step" in record]
    computed = len({(record["step"], record["pid"]) for record in records if record["rank"] == 0})
    times = [record["t"] for record in records]
    gaps = [b - a for a, b in zip(times, times[1:], strict=False)]
    pauses = sorted(gap for gap in gaps if gap > INTERRUPTION_S)
    wall_s = times[-1] - times[0]
    expected = done["epochs"] * -(-SAMPLES // BATCH)
    exact = done["counts"] == [done["epochs"]] and done["step"] == expected
    return {
        "epochs": done["epochs"],
        "samples": done["epochs"] * SAMPLES,
        "inexact": 0 if exact else 1,
        "steps": done["step"],
        "redone": computed - done["step"],
        "goodput_steps": done["step"] / max(computed, 1),
        "goodput_time": 1 - sum(pauses) / wall_s,
        "pauses": len(pauses),
        "recovery_median_s": pauses[len(pauses) // 2] if pauses else 0.0,
        "recovery_p99_s": pauses[int(len(pauses) * 0.99)] if pauses else 0.0,
        "longest_gap_s": max(gaps),
        "wall_s": wall_s,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--mean-s", type=float, default=15.0, help="mean time between faults")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--load", choices=["off", "half", "on"], default="half", help="CPU load")
    parser.add_argument(
        "--resize", choices=["restart", "live"], default="restart", help="what students do at a change"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edldist-soak-") as folder:
        trainer = "live_train.py" if options.resize == "live" else "train.py"
        job = FaultJob(Path(folder), checkpoint_every=20, trainer=trainer)
        soak = None
        try:
            soak = Soak(job, options.mean_s, options.seed, options.resize)
            soak.run(options.minutes, options.load)
            figures = {student.name: account(job, student) for student in soak.students}
            wasted = sum(
                int(event.fields.get("duplicates") or 0)
                for name in ("student_left", "student_lost")
                for event in job.events(name)
            )
        finally:
            if soak is not None:
                soak.load(False)
            job.close()
    print(f"faults fired in {options.minutes:g} min: {sum(soak.fired.values())} {dict(soak.fired)}")
    for name, row in figures.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in row.items()))
    print(f"labels wasted (duplicates since the coordinator's last restart): {wasted}")
    lost = sum(row["inexact"] for row in figures.values())
    print("all exact" if not lost else "LOSS: a sample was lost or counted twice")
    if options.json is not None:
        record = {"options": vars(options) | {"json": None}, "faults": dict(soak.fired), "students": figures}
        options.json.write_text(json.dumps(record, indent=2, default=str))
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
