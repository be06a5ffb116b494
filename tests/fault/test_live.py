"""Ranks that go on in process: killed, frozen, taken away and added, and nobody starts again.

Each survivor keeps its process. A step that some ranks applied and others did not cannot be: the final
weights are those of a run in which nothing happened, but for the order of sums.
"""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

import edldist
from tests.fault.books import STEADY, TOLERANCE, Plan, hurry, quiet_run
from tests.fault.harness import FaultJob, Role, assert_exact, fault_job, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(300)]

PLAN = Plan(samples=9_000, batch_size=20, epochs=2)
WAIT_S = 90.0
LIVE = {"EDLDIST_RESIZE": "live"}


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the plan comes to when nothing happens, in ``train.py``, whose loop is the same."""
    return quiet_run(tmp_path_factory.mktemp("quiet"), PLAN)


def live_job(folder: Path):
    return fault_job(folder, model=STEADY, trainer="live_train.py", heartbeat_ttl_s=3.0)


def start(job: FaultJob, nproc: int, teachers: int = 2, **args: object) -> Role:
    job.coordinator()
    for number in range(teachers):
        job.teacher(f"t-{number}")
    return job.student(nproc=nproc, env=LIVE, **PLAN.args(job, step_s=0.1), **args)


def taken(job: FaultJob) -> list[dict]:
    """Every step that a rank applied, in time."""
    return [record for record in job.steps() if "step" in record]


def last_step(job: FaultJob) -> int:
    """The last one that was taken; a rank that begins has written a line, too."""
    records = taken(job)
    return int(records[-1]["step"]) if records else 0


def await_world(job: FaultJob, world: int, after: float) -> dict:
    """The first step of a group of that size after a moment."""

    def found() -> list[dict]:
        return [record for record in taken(job) if record["t"] > after and record["world"] == world]

    return wait_for(f"a step of {world} ranks", found, WAIT_S)[0]


def rank(job: FaultJob, number: int) -> int:
    """The process that is this rank now."""
    return next(record["pid"] for record in reversed(taken(job)) if record["rank"] == number)


def assert_same(job: FaultJob, done: dict, quiet: dict) -> None:
    """As if nothing had happened: each sample once an epoch, in the seed's order, and the same weights."""
    assert_exact(done, PLAN.samples, PLAN.batch_size, PLAN.epochs)
    assert done["epochs"] == PLAN.epochs
    batches = PLAN.global_batches()
    for record in taken(job):
        sampler = edldist.ElasticSampler(
            PLAN.samples, PLAN.batch_size, rank=record["rank"], world_size=record["world"]
        )
        part = sampler.part((record["step"] - 1) * PLAN.batch_size % PLAN.samples)
        first = part.start % PLAN.batch_size
        whole = batches[record["step"] - 1]
        assert record["ids"] == whole[first : first + part.local_samples], record
    assert {record["step"] for record in taken(job)} == set(range(1, PLAN.steps + 1))
    assert done["weights"] == pytest.approx(quiet["weights"], abs=TOLERANCE, rel=TOLERANCE)
    assert any(abs(weight) > 1e-3 for weight in done["weights"])


def test_a_killed_and_a_frozen_rank_hold_nobody_up(tmp_path: Path, quiet: dict) -> None:
    with live_job(tmp_path) as job:
        node = start(job, nproc=3)
        await_world(job, 3, 0.0)
        job.await_step(last_step(job) + 20)

        survivors = {rank(job, 0), rank(job, 2)}
        killed = rank(job, 1)
        at = time.time()
        os.kill(killed, signal.SIGKILL)
        after = await_world(job, 2, at)
        assert {record["pid"] for record in taken(job) if record["t"] > after["t"] - 0.01} <= survivors
        back = await_world(job, 3, after["t"])
        job.await_step(last_step(job) + 10)
        assert survivors <= {process.pid for process in live_ranks(node)}, "a survivor was started again"

        frozen = rank(job, 0)
        at = time.time()
        os.kill(frozen, signal.SIGSTOP)
        after = await_world(job, 2, at)
        assert frozen not in {record["pid"] for record in taken(job) if record["t"] > after["t"]}
        os.kill(frozen, signal.SIGCONT)
        await_world(job, 3, after["t"])
        assert frozen in {process.pid for process in live_ranks(node)}, "the thawed rank was started again"
        assert back["generation"] > 1

        hurry(job)
        assert_same(job, job.finish(node), quiet)


def test_torch_averages_and_a_rank_is_killed(tmp_path: Path, quiet: dict) -> None:
    with live_job(tmp_path) as job:
        node = start(job, nproc=2, parallel=1)
        at = await_world(job, 2, 0.0)["t"]
        job.await_step(last_step(job) + 20)
        os.kill(rank(job, 0), signal.SIGKILL)
        await_world(job, 1, at)
        hurry(job)
        assert_same(job, job.finish(node), quiet)


def test_the_node_with_rank_0_is_taken_away_and_another_joins(tmp_path: Path, quiet: dict) -> None:
    with live_job(tmp_path) as job:
        first = start(job, nproc=1, nnodes="1:2")
        await_world(job, 1, 0.0)
        second = job.student("student-2", nnodes="1:2", env=LIVE, **PLAN.args(job, step_s=0.1))
        at = await_world(job, 2, 0.0)["t"]
        job.await_step(last_step(job) + 20)
        zero = rank(job, 0)
        gone, stays = (first, second) if zero in pids(first) else (second, first)
        gone.kill_tree()
        await_world(job, 1, time.time())
        third = job.student("student-3", nnodes="1:2", env=LIVE, **PLAN.args(job, step_s=0.1))
        await_world(job, 2, at + 1)
        job.await_step(last_step(job) + 10)
        hurry(job)
        done = job.finish(stays)
        assert third.wait(WAIT_S) == 0
        assert_same(job, done, quiet)


def test_a_rank_dies_while_the_coordinator_is_gone(tmp_path: Path, quiet: dict) -> None:
    with live_job(tmp_path) as job:
        node = start(job, nproc=2)
        await_world(job, 2, 0.0)
        job.await_step(last_step(job) + 20)
        coordinator = next(role for role in job.roles if role.name == "coordinator")
        survivor = rank(job, 0)
        coordinator.kill()
        job.await_step(last_step(job) + 10)
        os.kill(rank(job, 1), signal.SIGKILL)
        at = time.time()
        time.sleep(0.5)
        job.coordinator()
        await_world(job, 2, at)
        assert survivor in {process.pid for process in live_ranks(node)}
        hurry(job)
        assert_same(job, job.finish(node), quiet)


def test_who_is_asked_alone_leaves_and_who_is_asked_with_all_saves(tmp_path: Path, quiet: dict) -> None:
    with live_job(tmp_path) as job:
        first = start(job, nproc=1, nnodes="1:2")
        await_world(job, 1, 0.0)
        second = job.student("student-2", nnodes="1:2", env=LIVE, **PLAN.args(job, step_s=0.1))
        at = await_world(job, 2, 0.0)["t"]
        job.await_step(last_step(job) + 20)
        second.send(signal.SIGTERM)
        assert second.wait(30) == 143
        await_world(job, 1, at)
        stood = last_step(job)
        first.send(signal.SIGTERM)
        assert first.wait(30) == 143
        saved = job.events("checkpoint_saved")
        assert int(saved[-1].fields["step"]) >= stood

        again = job.student("student-3", nnodes="1:2", env=LIVE, **PLAN.args(job))
        hurry(job)
        done = job.finish(again)
        begins = [record for record in job.steps() if "begins" in record]
        assert begins[-1]["begins"] == int(saved[-1].fields["step"])
        assert_same(job, done, quiet)


def test_random_faults(tmp_path: Path, quiet: dict) -> None:
    faults = int(os.environ.get("EDLDIST_LIVE_FAULTS", "8"))
    seed = int(os.environ.get("EDLDIST_LIVE_SEED", "1"))
    draw = random.Random(seed)
    fired: list[str] = []
    with live_job(tmp_path) as job:
        node = start(job, nproc=3)
        await_world(job, 3, 0.0)
        while len(fired) < faults and last_step(job) < PLAN.steps - 40:
            job.await_step(last_step(job) + draw.randint(1, 8))
            here = [process for process in live_ranks(node) if process.status() != psutil.STATUS_STOPPED]
            if len(here) < 2:
                continue
            victim, kind = draw.choice(here), draw.choice(["kill", "kill", "freeze"])
            if kind == "kill":
                victim.kill()
            else:
                victim.suspend()
                time.sleep(draw.uniform(0.0, 4.0))
                victim.resume()
            fired.append(kind)
        assert len(fired) == faults, f"only {fired} of {faults} faults (seed {seed})"
        hurry(job)
        assert_same(job, job.finish(node), quiet)


def live_ranks(node: Role) -> list[psutil.Process]:
    """The training processes of a node."""
    found = []
    for process in node.tree():
        try:
            if any(part.endswith("live_train.py") for part in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def pids(node: Role) -> set[int]:
    return {process.pid for process in live_ranks(node)}
