"""Two students share a fleet; one of them dies."""

from __future__ import annotations

import time

import pytest

from tests.fault.crew import Crew, crew
from tests.fault.harness import wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]

WORKERS = 3


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    student = {"samples": 1000, "batch_size": 20, "step_s": 0.005, "name": "student-a"}
    with crew(tmp_path_factory.mktemp("shared"), 1, student, pass_s=0.04) as a:
        b = Crew(a.job, **student | {"name": "student-b"})
        a.hire(WORKERS - 1)
        a.staff(WORKERS, students=2)
        b.await_steps(20, 60)
        yield a, b
        a.finish()


def test_the_survivor_of_two_students_gets_the_whole_fleet_and_all_its_labels(pair: tuple[Crew, Crew]):
    a, b = pair
    start = time.time()
    wait_for("three seconds of training", lambda: time.time() > start + 3)
    killed = time.time()
    shares = a.rate(start, killed), b.rate(start, killed)
    b.student.kill()
    after = a.await_rate(0.9 * sum(shares), since=killed)
    print(f"shares {shares[0]:.0f}/s and {shares[1]:.0f}/s, then {after:.0f}/s, gap {a.gap_s(killed):.2f} s")
    assert min(shares) > 0.35 * sum(shares), "equal students get equal shares"
    assert a.gap_s(killed) < 1
    assert all(worker.alive for worker in a.workers())
    assert len(a.workers()) == WORKERS
    a.assert_exact_so_far()
    b.assert_exact_so_far()


def test_workers_forget_a_dead_student(pair: tuple[Crew, Crew]):
    a, b = pair
    assert not b.student.alive

    def forgotten() -> bool:
        members = a.job.status().members
        teachers = [m for m in members if m.role == "teacher"]
        return (
            len([m for m in members if m.role == "student"]) == 1
            and len(teachers) == WORKERS
            and all(m.stats.get("students") == 1 for m in teachers)
        )

    wait_for("the fleet to serve one student only", forgotten)
