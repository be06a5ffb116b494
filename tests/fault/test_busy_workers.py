"""A worker whose passes keep the interpreter, on a machine that is crowded, at default settings: it lives."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.harness import assert_exact, fault_job, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]

HELD_S = 5
CROWD = 10


@contextlib.contextmanager
def crowded(processes: int) -> Iterator[None]:
    """So many processes that want a CPU each."""
    crowd = [
        subprocess.Popen([sys.executable, "-I", "-S", "-c", "while True: pass"]) for _ in range(processes)
    ]
    try:
        yield
    finally:
        for each in crowd:
            each.kill()
            each.wait()


def test_a_busy_worker_on_a_crowded_machine_is_not_taken_for_lost(tmp_path: Path):
    with fault_job(tmp_path, heartbeat_interval_s=1.0, heartbeat_ttl_s=3.0) as job:
        job.coordinator()
        worker = job.teacher("t-1", env={"EDLDIST_TEST_GIL_S": str(HELD_S)})
        student = job.script(samples=2000, batch_size=20, step_s=0.01)
        job.await_step(2)
        with crowded(CROWD):
            for _ in range(3):
                job.ask("hold_gil")
                assert job.culprit("hold_gil", 60) is worker
            before = job.steps()[-1]["step"]
            wait_for("steps after the last pass", lambda: job.steps()[-1]["step"] > before, 60)
            assert job.events("teacher_lost") == job.events("task_requeued") == []
        done = job.finish(student)
    assert_exact(done, 2000, 20)
    assert "lost" not in student.tail(1000)
