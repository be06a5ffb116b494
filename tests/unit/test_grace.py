"""How long those who are asked to leave may take, checked in one place."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist.config import load_job
from edldist.coordinator.closing import LEAVE_S
from edldist.errors import ConfigError
from edldist.grace import DRAIN_S, KILL_S, MARGIN_S, STUDENT_S, Grace
from edldist_launch.job.leaving import COORDINATOR_S, LAST_WORDS_S, LEAST_S, Leaving
from edldist_launch.plan.plan import Plan

JOB = """
name: toy
teachers: [{model: 'a:b'}]
student: {script: s.py}
"""


def test_the_defaults_leave_a_margin_below_what_engines_give() -> None:
    assert (DRAIN_S, STUDENT_S, KILL_S) == (20.0, 25.0, 30.0)
    assert Grace() == Grace(DRAIN_S, STUDENT_S, KILL_S)


@pytest.mark.parametrize(
    ("times", "why"),
    [
        ((30, 30, 30), "ranks wait for the labels"),
        ((30, 30, 30), "a node has to collect its ranks"),
        ((24, 25, 30), "ranks wait for the labels"),
        ((20, 29, 30), "a node has to collect its ranks"),
        ((0, 60, 30), "a node has to collect its ranks"),
    ],
)
def test_times_that_do_not_follow_each_other_are_refused_with_all_three(
    times: tuple[float, float, float], why: str
) -> None:
    with pytest.raises(ValueError) as raised:
        Grace(*times)
    said = str(raised.value)
    assert "drain_s {}, student_s {} and kill_s {} ".format(*times) in said and why in said


def test_a_job_file_sets_them_and_says_what_is_wrong_with_them(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    assert load_job(path).grace.times == Grace()
    assert load_job(path, ["grace.drain_s=1", "grace.student_s=3.5", "grace.kill_s=6"]).grace.times == Grace(
        1.0, 3.5, 6.0
    )
    with pytest.raises(ConfigError, match=r"grace.*drain_s 20, student_s 25 and kill_s 15 need at least 2 s"):
        load_job(path, ["grace.kill_s=15"])
    with pytest.raises(ConfigError, match=r"grace\.student_s"):
        load_job(path, ["grace.student_s=-1"])


def test_what_a_job_file_says_is_what_its_processes_are_told(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB + "grace: {drain_s: 100, student_s: 200, kill_s: 300}\n")
    job = load_job(path)
    plan = Plan(job, tmp_path, tmp_path / "out")
    teacher = plan.teacher_command(job.teachers[0], "t-0", "tcp://h:1")
    assert teacher[teacher.index("--drain-s") + 1] == "100.0"
    student = plan.student_command("tcp://h:1")
    assert student[student.index("--grace-s") + 1] == "200.0"
    assert student[-1] == "s.py"


@given(
    drain_s=st.floats(0, 100),
    more_s=st.floats(MARGIN_S, 100),
    rest_s=st.floats(MARGIN_S, 100),
    students_s=st.floats(0, 1),
    teachers_s=st.floats(0, 1),
)
def test_a_job_on_this_machine_is_over_before_it_is_killed(
    drain_s: float, more_s: float, rest_s: float, students_s: float, teachers_s: float
) -> None:
    """However much of their time the students take, and then the teachers."""
    grace = Grace(drain_s, drain_s + more_s, drain_s + more_s + rest_s)
    leaving = Leaving(grace)
    asked_s = students_s * leaving.students_s
    assert asked_s <= grace.kill_s - 1
    asked_s += teachers_s * leaving.teachers_s(asked_s)
    asked_s += leaving.coordinator_s(asked_s)
    assert asked_s <= grace.kill_s + 2 * LEAST_S - LAST_WORDS_S + 1e-6


def test_one_that_ends_by_itself_is_not_in_a_hurry() -> None:
    leaving = Leaving(Grace(3, 100, 1000))
    assert leaving.teachers_s(None) == 3 and leaving.coordinator_s(None) == COORDINATOR_S > LEAVE_S
    assert Leaving(Grace(50, 100, 1000)).teachers_s(None) == 10
