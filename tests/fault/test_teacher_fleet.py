"""The fleet grows, shrinks, vanishes and comes back; with fixed cuts nothing of it shows in the weights."""

from __future__ import annotations

import signal
import statistics
import time

import pytest

from tests.fault.crew import Crew, crew
from tests.fault.harness import assert_exact, fault_job, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]

MANY = 8


@pytest.fixture(scope="module")
def party(tmp_path_factory):
    student = {"samples": 1000, "batch_size": 20, "step_s": 0.005}
    folder = tmp_path_factory.mktemp("fleet")
    with crew(folder, 1, student, pass_s=0.05, heartbeat_interval_s=0.1) as made:
        yield made
        made.finish()


def test_workers_that_join_get_work_within_a_second_and_the_rate_grows(party: Crew):
    start = time.time()
    party.await_steps(20)
    alone = party.rate(start, time.time())
    new = {worker.name for worker in party.hire(MANY - 1)}
    joined: dict[str, float] = {}
    worked: dict[str, float] = {}

    def all_work() -> bool:
        for member in party.job.status().members:
            if member.id in new:
                joined.setdefault(member.id, time.monotonic())
                if member.stats.get("samples"):
                    worked.setdefault(member.id, time.monotonic())
        return worked.keys() == new

    wait_for("every new worker to label", all_work, 90)
    waits = sorted(worked[name] - joined[name] for name in new)
    together = party.await_rate(3 * alone, since=time.time())
    print(f"work after {[round(w, 2) for w in waits]} s; {alone:.0f}/s alone, {together:.0f}/s as {MANY}")
    assert statistics.median(waits) < 1
    assert waits[-1] < 2  # their models are loaded at the same time, on few cores
    party.assert_exact_so_far()


def test_workers_that_leave_take_nothing_along(party: Crew):
    before = party.stats()
    leaving = party.workers()[1:]
    asked = time.time()
    for worker in leaving:
        worker.send(signal.SIGTERM)
    assert [worker.wait(20) for worker in leaving] == [143] * len(leaving)
    party.await_steps(10)
    after = party.stats()
    assert len(party.workers()) == 1
    assert after["failed"] == before["failed"]
    reasons = {str(event.fields["reason"]) for event in party.job.events("task_requeued")}
    assert reasons <= {"it gave them back"}
    assert party.gap_s(asked) < 1
    party.assert_exact_so_far()


def test_without_any_worker_the_student_waits_says_so_and_goes_on(party: Crew):
    (last,) = party.workers()
    since = party.logged()
    last.kill()
    party.await_log("no worker of 'teacher' is connected; going on when one comes", since=since)
    steps = len(party.steps())
    assert party.student.alive
    party.staff(1)
    wait_for("training to go on", lambda: len(party.steps()) > steps + 20)
    party.assert_exact_so_far()


def test_the_weights_are_those_of_the_quiet_run_whoever_is_killed(tmp_path):
    samples, batch_size, kills = 3000, 20, 4
    run = {"samples": samples, "batch_size": batch_size}
    with fault_job(tmp_path, deterministic=True, task_size=5, pass_s=0.04, checkpoint_every=100_000) as job:
        job.coordinator()
        workers = [job.teacher(f"t-{number}") for number in range(kills + 2)]
        quiet = job.finish(job.script("quiet", output=tmp_path / "quiet", **run), output=tmp_path / "quiet")
        student = job.script("shaken", output=tmp_path / "shaken", **run)
        for victim in workers[:kills]:
            step = len(job.steps(tmp_path / "shaken"))
            job.await_step(step + 1, output=tmp_path / "shaken")
            next_kill = time.monotonic() + 1
            wait_for("its turn", lambda due=next_kill: time.monotonic() > due)
            assert student.alive and not (tmp_path / "shaken" / "done.json").exists()
            victim.kill()
        shaken = job.finish(student, output=tmp_path / "shaken")
    for done in (quiet, shaken):
        assert_exact(done, samples, batch_size)
    assert quiet["stats"]["requeued"] == 0 < shaken["stats"]["requeued"]
    assert shaken["sha256"] == quiet["sha256"]
