"""Wall clocks jump and differ: deadlines run on monotonic time, and a node that cannot join is told why."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.fault.books import (
    STEADY,
    Plan,
    assert_as_quiet,
    hurry,
    last_step,
    quiet_run,
    rank_books,
    redone,
    world,
)
from tests.fault.harness import ROOT, FaultJob, fault_job, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]

HOUR_S = 3600
STANDSTILL_S = 3.0
"""A timer on the wall clock would stop for an hour, or fire at once: losses and requeues tell. A busy
machine, where each look at a faked clock reads a file, stood still for 0.8 s without a jump
and up to 1.5 s with one."""
PLAN = Plan(samples=12_000, batch_size=20)
PAIR = Plan(samples=4000, batch_size=20)
MEETING = Plan(samples=6000, batch_size=20)


SHARED = Path("/dev/shm")


@pytest.fixture(autouse=True)
def swept() -> Iterator[None]:
    """What libfaketime shares lies there under its process's number, also after that was killed."""

    def left() -> set[Path]:
        return {
            path
            for path in SHARED.glob("*faketime_*")
            if not psutil.pid_exists(int(path.name.split("_")[-1]))
        }

    before = left()
    yield
    for path in left() - before:
        path.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def faketime() -> Path:
    """libfaketime, installed if it is missing and this machine can."""

    def found() -> Path | None:
        return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)

    if found() is None:
        if shutil.which("apt-get") is None:
            pytest.skip("no libfaketime here, and no apt-get to install it")
        install = Path(__file__).with_name("install.sh")
        done = subprocess.run([str(install)], capture_output=True, text=True, timeout=150)
        if done.returncode or found() is None:
            pytest.skip(f"libfaketime cannot be installed: {done.stderr.strip()[-300:]}")
    library = found()
    assert library is not None
    return library


SLEEP = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""
"""For ``sitecustomize``: libfaketime before 0.9.11 shifts the deadline of a monotonic sleep too, which
Python's own sleep asks for since 3.11 (its issue 426: EINVAL when the clock is ahead)."""


class WallClock:
    """The wall clock of some processes, off by what ``set`` says; their monotonic clock stays true."""

    def __init__(self, library: Path, file: Path) -> None:
        self._file = file
        self.set(0)
        site = file.with_suffix(".site")
        site.mkdir()
        (site / "sitecustomize.py").write_text(SLEEP)
        self.env = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
        }

    def set(self, offset_s: float) -> None:
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"{offset_s:+g}\n")
        draft.replace(self._file)  # read at every look at the clock: it must never be half written


def longest_standstill(job: FaultJob, steps: int) -> float:
    """Watch this many more steps; the longest time (of this process) in which none came."""
    target = taken(job) + steps
    longest, seen, since = 0.0, taken(job), time.monotonic()
    while seen < target:
        now = taken(job)
        longest = max(longest, time.monotonic() - since)
        if now > seen:
            seen, since = now, time.monotonic()
        assert time.monotonic() - since < 30, "training stands still"
        time.sleep(0.005)
    return longest


def jump_about(job: FaultJob, clock: WallClock, steps: int) -> None:
    """Let a clock jump forth, back and home without training standing still."""
    for offset_s in (HOUR_S, -HOUR_S, 0):
        clock.set(offset_s)
        assert longest_standstill(job, steps) < STANDSTILL_S


def taken(job: FaultJob) -> int:
    return len(rank_books(job).get(0, []))


def jumps(job: FaultJob) -> list[float]:
    """Differences of the wall clock between two steps that are no fair waiting time."""
    times = [record["t"] for record in rank_books(job)[0]]
    return [b - a for a, b in zip(times, times[1:], strict=False) if abs(b - a) > HOUR_S / 2]


def test_a_wall_clock_that_jumps_by_an_hour_is_noticed_by_nobody(tmp_path: Path, faketime: Path) -> None:
    quiet = quiet_run(tmp_path / "quiet", PLAN, task_size=10)
    # A jump of an hour exceeds any TTL; a busy machine, where each look at a clock reads a file, must not.
    options = {"deterministic": True, "task_size": 10, "heartbeat_ttl_s": 5.0}
    with fault_job(tmp_path, model=STEADY, **options) as job:
        student_clock = WallClock(faketime, tmp_path / "student.clock")
        teacher_clock = WallClock(faketime, tmp_path / "teacher.clock")
        job.coordinator()
        workers = [job.teacher("t-0", env=teacher_clock.env), job.teacher("t-1")]
        student = job.script(env=student_clock.env, **PLAN.args(job, step_s=0.02))
        job.await_step(10)
        job.await_serving(2)
        jump_about(job, student_clock, steps=30)
        jump_about(job, teacher_clock, steps=30)
        assert [round(jump / HOUR_S) for jump in jumps(job)] == [1, -2, 1], "not felt"
        assert all(role.alive for role in [*workers, student])
        assert not job.events("teacher_lost") and not job.events("student_lost")
        hurry(job)
        done = job.finish(student)
        assert done["stats"]["requeued"] == 0
        assert_as_quiet(job, done, PLAN, quiet, bitwise=True)


def test_a_node_whose_wall_clock_jumps_trains_on(tmp_path: Path, faketime: Path) -> None:
    quiet = quiet_run(tmp_path / "quiet", PAIR, nproc=2, task_size=5)
    # As above: two ranks that start up hold their interpreter locks for long.
    options = {"deterministic": True, "task_size": 5, "heartbeat_ttl_s": 5.0}
    with fault_job(tmp_path, model=STEADY, **options) as job:
        clock = WallClock(faketime, tmp_path / "node.clock")
        job.coordinator()
        job.teacher("t-0")
        node = job.student(nproc=2, env=clock.env, **PAIR.args(job, step_s=0.1))
        job.await_step(5)
        jump_about(job, clock, steps=15)
        assert [round(jump / HOUR_S) for jump in jumps(job)] == [1, -2, 1], "not felt"
        hurry(job)
        done = job.finish(node)
        assert redone(job) == 0
        assert_as_quiet(job, done, PAIR, quiet, bitwise=True)


@pytest.mark.timeout(480)
def test_a_node_whose_wall_clock_jumped_finds_the_others_at_every_regrouping(
    tmp_path: Path, faketime: Path
) -> None:
    quiet = quiet_run(tmp_path / "quiet", MEETING)
    # As above: two ranks that start up at a time, one of which reads a file at each look at a clock.
    with fault_job(tmp_path, model=STEADY, heartbeat_ttl_s=5.0) as job:
        clock = WallClock(faketime, tmp_path / "node.clock")
        job.coordinator()
        job.teacher("t-0")
        args = MEETING.args(job, step_s=0.1)
        true = job.student("student-true", nnodes="1:2", **args)
        jumping = job.student("student-jumping", nnodes="1:2", env=clock.env, **args)
        wait_for("a group of two", lambda: world(job) == 2, 120)

        for offset_s, victim in ((HOUR_S, true), (-HOUR_S, jumping)):
            clock.set(offset_s)
            job.await_step(last_step(job) + 20)  # agents look at their clocks every second
            former = {process.pid for node in (true, jumping) for process in node.ranks()}
            victim.ranks()[0].kill()
            job_steps = len(job.steps())

            def met(known: int = job_steps, old: set[int] = former) -> bool:
                fresh = [step for step in job.steps()[known:] if step["pid"] not in old]
                return len({step["pid"] for step in fresh if step["world"] == 2}) == 2

            wait_for("the two nodes to meet again", met, 120)
        assert true.alive and jumping.alive
        hurry(job)
        done = job.finish(true)
        assert jumping.wait(120) == 0
        assert redone(job) > 0
        assert_as_quiet(job, done, MEETING, quiet, bitwise=False)


def test_a_clock_that_is_off_is_reported_and_keeps_nobody_out(tmp_path: Path, faketime: Path) -> None:
    with fault_job(tmp_path, model=STEADY) as job:
        behind = WallClock(faketime, tmp_path / "clock")
        behind.set(-20)
        coordinator = job.coordinator()

        worker = job.teacher("t-late", env=behind.env)
        event = wait_for("the report", lambda: job.events("clock_skew"), 60)[0]
        assert event.fields["id"] == "t-late"
        assert float(event.fields["skew_s"] or 0) == pytest.approx(-20, abs=1.5)
        warning = next(line for line in coordinator.log.read_text().splitlines() if "clock_skew" in line)
        assert "WARNING" in warning and "t-late" in warning
        assert re.search(r"skew_s\W+-(19|20|21)\.", warning), warning

        # It works nevertheless: clocks decide nothing, between a worker and a student or among nodes.
        plan = Plan(200, 20)
        nodes = [
            job.student(name, nnodes="2", env=env, **plan._asdict())
            for name, env in (("student-true", {}), ("student-late", behind.env))
        ]
        done = job.finish(nodes[0])
        assert nodes[1].wait(60) == 0, nodes[1].tail()
        assert done["counts"] == [1] and worker.alive
        assert last_step(job) == 10 and world(job) == 2
