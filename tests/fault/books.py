"""What the ranks of a job wrote down, and the quiet run that a faulty one is compared with."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import NamedTuple

import pytest

import edldist
from tests.fault.harness import FaultJob, Role, assert_exact, fault_job

STEADY = "tests.fault.teachers:steady"
TOLERANCE = 1e-9
"""Of final weights between world sizes: float64 sums in another order, over some hundred steps."""


class Plan(NamedTuple):
    """A student's task; runs of one plan end with the same weights."""

    samples: int
    batch_size: int
    epochs: int = 1

    @property
    def steps(self) -> int:
        return self.epochs * -(-self.samples // self.batch_size)

    def args(self, job: FaultJob, **more: object) -> dict[str, object]:
        """Flags of ``train.py``; ``hurry(job)`` ends the pauses between steps."""
        return {**self._asdict(), "hurry": job.folder / "hurry", **more}

    def global_batches(self) -> list[list[int]]:
        """The samples of every step, as the sampler orders them for one rank."""
        sampler = edldist.ElasticSampler(self.samples, self.batch_size, rank=0, world_size=1)
        batches = []
        for epoch in range(self.epochs):
            sampler.set_epoch(epoch)
            batches += list(sampler)
        return batches


def hurry(job: FaultJob) -> None:
    """No faults to come: train to the end without pauses."""
    (job.folder / "hurry").touch()


def rank_books(job: FaultJob) -> dict[int, list[dict]]:
    """Every step that each rank wrote down, redone ones too, oldest first."""
    books: dict[int, list[dict]] = {}
    for path in job.output.glob("steps-rank*.jsonl"):
        rank = int(path.stem.removeprefix("steps-rank"))
        books[rank] = []
        for line in path.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # killed in mid-write
                books[rank].append(json.loads(line))
    return books


def global_batches(job: FaultJob) -> list[list[int]]:
    """The samples of every step over all ranks, by rank; of a redone step the last time counts."""
    books = rank_books(job)
    last: dict[int, dict[int, dict]] = {}
    for rank, records in books.items():
        for record in records:
            last.setdefault(record["step"], {})[rank] = record
    batches = []
    for _, ranks in sorted(last.items()):
        world = max(ranks.values(), key=lambda record: record["t"])["world"]
        batches.append([i for rank in range(world) for i in ranks[rank]["ids"]])
    return batches


def redone(job: FaultJob) -> int:
    """Steps that were computed again because they were lost with a group."""
    steps = [record["step"] for record in rank_books(job)[0]]
    return len(steps) - len(set(steps))


def world(job: FaultJob) -> int:
    """Ranks in the group that took the last step."""
    steps = job.steps()
    return steps[-1]["world"] if steps else 0


def last_step(job: FaultJob) -> int:
    steps = job.steps()
    return steps[-1]["step"] if steps else 0


def assert_as_quiet(job: FaultJob, done: dict, plan: Plan, quiet: dict, *, bitwise: bool) -> None:
    """The run ended as if nothing had happened.

    Args:
        bitwise: the world size never changed, so not even the last bit of a weight may differ.
    """
    assert_exact(done, plan.samples, plan.batch_size, plan.epochs)
    assert global_batches(job) == plan.global_batches()
    if bitwise:
        assert done["sha256"] == quiet["sha256"]
    assert done["weights"] == pytest.approx(quiet["weights"], abs=TOLERANCE, rel=TOLERANCE)
    assert any(abs(weight) > 1e-3 for weight in done["weights"])  # it has learnt something


def quiet_run(folder: Path, plan: Plan, nproc: int = 1, task_size: int | None = None) -> dict:
    """What the plan comes to when nothing happens."""
    with fault_job(folder, model=STEADY, pass_s=0.0, deterministic=True, task_size=task_size) as job:
        job.coordinator()
        job.teacher("t-quiet")
        args = plan.args(job)
        student: Role = job.script(**args) if nproc == 1 else job.student(nproc=nproc, **args)
        done = job.finish(student)
        assert_as_quiet(job, done, plan, done, bitwise=True)
        return done
