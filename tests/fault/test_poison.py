"""Tasks that no worker survives, or labels, and workers that label nothing.

One fleet of five workers for all cases. They raise on sample 777, or die of it where a test says so.
"""

from __future__ import annotations

import re
import time

import pytest

import edldist
from tests.fault.crew import Crew
from tests.fault.harness import FaultJob, Role, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]

SAMPLES, BATCH = 1000, 20
WORKERS = 5


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    job = FaultJob(
        tmp_path_factory.mktemp("poison"), model="tests.fault.teachers:cursed", checkpoint_every=10**6
    )
    try:
        job.coordinator()
        for number in range(WORKERS):
            job.teacher(f"t-{number}")
        job.await_serving(WORKERS)
        yield job
    finally:
        job.close()


def place_of_777() -> tuple[int, int, list[list[int]]]:
    """Batch and position of the poisoned sample, and all batches."""
    batches = list(edldist.ElasticSampler(SAMPLES, BATCH, rank=0, world_size=1))
    batch = next(number for number, ids in enumerate(batches) if 777 in ids)
    return batch, batches[batch].index(777), batches


def assert_poison_reported(student: Role, job: FaultJob, name: str) -> str:
    """The student ended with a ``PoisonTaskError`` that says where; every batch before came."""
    assert student.wait(60) == 1, student.tail()
    batch, position, batches = place_of_777()
    text = student.log.read_text()
    found = re.search(
        r"PoisonTaskError: .*could not label samples (\d+)\.\.(\d+) of batch (\d+) in 3 attempts", text
    )
    assert found, student.tail()
    first, last, number = map(int, found.groups())
    assert number == batch and first <= position <= last
    assert [step["ids"] for step in job.steps(job.folder / name)] == batches[:batch]
    return text


def test_a_task_that_every_model_raises_on_ends_training_with_position_and_traceback(fleet: FaultJob):
    student = fleet.script("raises", output=fleet.folder / "raises", samples=SAMPLES, batch_size=BATCH)
    text = assert_poison_reported(student, fleet, "raises")
    assert fleet.fired("poison")
    assert "ValueError: sample 777 is poison on purpose" in text
    assert "tests/fault/teachers.py" in text, "the teacher's own traceback is missing"
    (event,) = fleet.events("task_poisoned")
    assert event.fields["batch"] == place_of_777()[0]
    assert all(role.alive for role in fleet.roles if role.name.startswith("t-"))


def test_poison_is_skipped_and_counted_where_the_job_says_so(fleet: FaultJob):
    output = fleet.folder / "skips"
    student = fleet.script(
        *("skips",),
        output=output,
        env={"EDLDIST_ON_POISON": "skip"},
        samples=SAMPLES,
        batch_size=BATCH,
    )
    done = fleet.finish(student, output=output)
    batch, _, batches = place_of_777()
    assert done["stats"]["skipped"] == BATCH
    assert done["stats"]["failed"] >= 3
    assert [step["ids"] for step in fleet.steps(output)] == batches[:batch] + batches[batch + 1 :]
    assert done["counts"] == [0, 1]


def test_a_worker_that_always_fails_is_quarantined_and_status_says_why(fleet: FaultJob):
    env = {"EDLDIST_AGREEMENT": "off"}  # else it is put aside before it has a task
    party = Crew(fleet, samples=700, batch_size=BATCH, name="healthy", step_s=0.01, env=env)
    fleet.teacher("sick", env={"EDLDIST_TEST_SICK": "1"})

    def reason() -> str:
        member = party.member("sick")
        return "" if member is None else str(member.stats.get("quarantine") or "")

    said = wait_for("the sick worker's quarantine in the status", reason, 40)
    assert fleet.fired("sick")
    assert "failures in a row" in said and "this device is sick on purpose" in said
    assert fleet.events("teacher_quarantined")[-1].fields["worker"] == "sick"
    since = time.time()
    party.await_steps(100)
    assert party.gap_s(since) < 1
    done = party.finish()
    assert done["stats"]["failed"] in (4, 5), "it held one more when it was quarantined"
    next(role for role in fleet.roles if role.name == "sick").kill()


def test_a_task_that_kills_workers_is_found_out_before_it_kills_them_all(fleet: FaultJob):
    fleet.ask("deadly")
    workers = [role for role in fleet.roles if role.name.startswith("t-")]
    assert all(worker.alive for worker in workers)
    student = fleet.script("deadly", output=fleet.folder / "deadly", samples=SAMPLES, batch_size=BATCH)
    text = assert_poison_reported(student, fleet, "deadly")
    killed = {int(line) for line in (fleet.faults / "killed").read_text().split()}
    dead = [worker for worker in workers if not worker.alive]
    assert {worker.pid for worker in dead} == killed
    assert len(killed) == 3, "three attempts are proof"
    names = [worker.name for worker in dead]
    assert any(f"worker {name} was lost while it held only this task" in text for name in names)
    assert sum(f"worker {name} is lost" in text for name in names) == 3
