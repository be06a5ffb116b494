"""Workers, ranks and the coordinator die while a student asks for labels of what it makes: exact as ever."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from tests.fault.books import STEADY, hurry, last_step, rank_books, redone
from tests.fault.harness import FaultJob, fault_job, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(300)]

STEPS = 400
RECOVERY_S = 60.0


def on_policy_job(folder: Path):
    return fault_job(folder, model=STEADY, deterministic=True, task_size=5, trainer="own_train.py")


def quiet_run(folder: Path, nproc: int) -> dict:
    with on_policy_job(folder) as job:
        job.pass_s = 0.0
        job.coordinator()
        job.teacher("t-quiet")
        student = job.student(nproc=nproc, steps=STEPS)
        return job.finish(student)


def await_steps(job: FaultJob, more: int) -> None:
    job.await_step(last_step(job) + more, RECOVERY_S)


@pytest.mark.parametrize("nproc", [1, 2])
def test_the_weights_are_those_of_a_quiet_run_whoever_dies(tmp_path: Path, nproc: int) -> None:
    """What a restored rank makes is what the former one made, and gets labels of its own."""
    quiet = quiet_run(tmp_path / "quiet", nproc)
    with on_policy_job(tmp_path) as job:
        coordinator = job.coordinator()
        workers = [job.teacher(f"t-{number}") for number in range(3)]
        node = job.student(nproc=nproc, steps=STEPS, step_s=0.05, hurry=job.folder / "hurry")
        job.await_step(15)

        workers[0].kill()
        await_steps(job, 10)
        workers[1].send(signal.SIGSTOP)
        await_steps(job, 10)
        coordinator.kill()
        await_steps(job, 10)
        job.coordinator()
        workers[1].send(signal.SIGCONT)
        await_steps(job, 10)

        former = {process.pid for process in node.ranks()}
        psutil.Process(rank_books(job)[nproc - 1][-1]["pid"]).kill()
        wait_for("steps of new ranks", lambda: job.steps()[-1]["pid"] not in former, RECOVERY_S)
        await_steps(job, 10)
        hurry(job)
        done = job.finish(node)
        assert redone(job) > 0, "the killed rank lost no step"
        assert done["step"] == quiet["step"] == STEPS
        assert done["sha256"] == quiet["sha256"]
        assert done["stats"]["staleness"] == 0


def test_a_loop_that_makes_its_next_batch_first_goes_on_without_workers_and_with_new_ones(
    tmp_path: Path,
) -> None:
    with on_policy_job(tmp_path) as job:
        job.coordinator()
        workers = [job.teacher(f"t-{number}") for number in range(2)]
        node = job.student(steps=STEPS, staleness=2, step_s=0.02, hurry=job.folder / "hurry")
        job.await_step(15)
        for worker in workers:
            worker.kill()
        wait_for("the student to say that it waits", lambda: "no worker of 'teacher'" in node.log.read_text())
        job.teacher("t-new")
        await_steps(job, 10)
        hurry(job)
        done = job.finish(node)
        assert redone(job) == 0 and done["step"] == STEPS
        stats = done["stats"]
        assert (stats["staleness"], stats["requeued"] > 0) == (2, True)
        assert stats["batches"] == STEPS
