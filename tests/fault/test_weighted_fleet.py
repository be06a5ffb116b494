"""Three jobs of weights 4, 1 and 1 share a fleet; the heavy one dies."""

from __future__ import annotations

import time

import pytest

from tests.fault.crew import Crew, crew
from tests.fault.harness import wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]

WORKERS = 2
WEIGHTS = {"heavy": 4, "light": 1, "lighter": 1}


def variables(name: str) -> dict[str, str]:
    return {"EDLDIST_JOB": name, "EDLDIST_WEIGHT": str(WEIGHTS[name])}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    student = {"samples": 1000, "batch_size": 20, "step_s": 0.005}
    first = student | {"name": "heavy", "env": variables("heavy")}
    with crew(tmp_path_factory.mktemp("weighted"), 1, first, pass_s=0.04) as heavy:
        others = [Crew(heavy.job, **student, name=name, env=variables(name)) for name in ("light", "lighter")]
        heavy.hire(WORKERS - 1)
        heavy.staff(WORKERS, students=3)
        for other in others:
            other.await_steps(20, 60)
        yield heavy, *others
        for other in others:
            other.finish()


def test_the_others_take_the_part_of_a_heavy_job_that_dies(jobs: tuple[Crew, Crew, Crew]):
    heavy, light, lighter = jobs
    start = time.time()
    wait_for("four seconds of training", lambda: time.time() > start + 4)
    killed = time.time()
    rates = [job.rate(start, killed) for job in jobs]
    heavy.student.kill()
    wait_for("the heavy job to be dead", lambda: not heavy.student.alive)
    due = [sum(rates) * weight / 6 for weight in (4, 1, 1)]
    after = light.await_rate(0.4 * sum(rates), since=killed)
    gaps = [light.gap_s(killed), lighter.gap_s(killed)]
    print(f"rates {[round(rate) for rate in rates]}/s, then {after:.0f}/s, gaps {gaps}")
    for rate, its in zip(rates, due, strict=True):
        assert rate == pytest.approx(its, abs=0.1 * sum(rates)), "each has its part by weight"
    assert max(gaps) < 1
    for job in jobs:
        job.assert_exact_so_far()
