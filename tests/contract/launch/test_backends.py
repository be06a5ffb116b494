"""What every engine that places processes must do alike (``launch.contract.backend``)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edldist.errors import ConfigError, LaunchError
from edldist_launch.contract.backend import Backend, JobState
from edldist_launch.contract.submission import find_submission
from edldist_launch.job.engines import backend_of
from edldist_launch.plan.plan import Plan
from tests.contract.launch.engines import ENGINES, Engine, write_scripts

pytestmark = pytest.mark.timeout(300)

ENDED = ("succeeded", "failed")


@dataclass
class Job:
    """A job that was started in a folder."""

    engine: Engine
    output: Path
    plan: Plan

    @property
    def backend(self) -> Backend:
        return self.engine.backend(self.output)

    def until(self, reached: Callable[[JobState], bool]) -> JobState:
        """The first state of which that is true."""
        deadline = time.monotonic() + self.engine.patience_s
        while not reached(state := self.backend.state()):
            assert time.monotonic() < deadline, f"it did not come: {state}"
            time.sleep(0.1)
        return state

    def until_running(self) -> JobState:
        def running(state: JobState) -> bool:
            # A student that needs no coordinator yet may be there before it.
            there = state.phase == "running" and state.coordinator is not None
            return there and state.role("student").count("running") == 1

        return self.until(running)

    def until_logged(self, role: str, text: str) -> list[str]:
        """The lines of a role's logs, once one of them says that."""
        self.until(lambda state: any(line.endswith(text) for line in self.backend.logs(role)))
        return list(self.backend.logs(role))


Start = Callable[..., Job]


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.slow if name == "kubernetes" else ()) for name in sorted(ENGINES)
    ],
)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    made = ENGINES[request.param]()
    yield made
    made.close()


@pytest.fixture
def start(engine: Engine, tmp_path: Path) -> Iterator[Start]:
    """Starts a job; those that still run are stopped."""
    jobs: list[Job] = []
    write_scripts(tmp_path)

    def begin(**changes: Any) -> Job:
        output = tmp_path / "out"
        job = Job(engine, output, engine.plan(tmp_path, output, **changes))
        jobs.append(job)
        job.backend.start(job.plan)
        return job

    yield begin
    for job in jobs:
        if find_submission(job.output) is not None:
            job.backend.stop(0.0)
        assert engine.left_behind(job.output) == []


def test_a_job_is_found_scaled_shown_and_refused_a_second_time(start: Start, engine: Engine) -> None:
    job = start()
    submission = find_submission(job.output)
    assert submission is not None and submission.job == "toy"
    assert type(backend_of(submission, job.output)) is type(job.backend)

    state = job.until_running()
    assert [role.name for role in state.roles] == ["coordinator", "t", "student"]
    assert state.coordinator is not None
    assert [role.wanted for role in state.roles] == [1, 1, 1]
    for role in state.roles:
        for process in role.processes:
            assert process.engine_id and process.restarts == 0, process

    with pytest.raises(LaunchError) as twice:
        job.backend.start(job.plan)
    assert str(job.output) in str(twice.value)
    assert job.backend.state().phase == "running"

    for wanted, error, says in (
        ({"t": 4}, ConfigError, "t=4"),
        ({"t": 0}, ConfigError, "t=0"),
        ({"student": 2}, ConfigError, "student=2"),
        ({"coordinator": 2}, ConfigError, "one coordinator"),
        ({"t": 2, "nobody": 1}, ConfigError, "no role `nobody`"),
        ({"nobody": None}, ConfigError, "no role `nobody`"),
    ):
        with pytest.raises(error, match=says):
            job.backend.scale(wanted)
    with pytest.raises(ConfigError, match="no role `nobody`"):
        job.backend.logs("nobody")
    assert (state.role("t").wanted, state.role("t").held) == (1, None)

    job.backend.scale({"t": 3, "student": 1})
    # Who places processes may act on a number before the coordinator has told that it holds it.
    state = job.until(lambda state: (state.role("t").count("running"), state.role("t").held) == (3, 3))
    assert (state.role("t").wanted, state.role("t").held, state.role("student").held) == (3, 3, 1)
    assert len({process.engine_id for process in state.role("t").processes}) == 3
    workers = {process.id for process in state.role("t").processes}
    joined = "joined the job at " + engine.address(state)

    def those_who_joined() -> set[str]:
        return {line.partition(": ")[0] for line in job.backend.logs("t") if line.endswith(joined)}

    job.until(lambda state: those_who_joined() == workers)
    job.backend.scale({"t": 1})
    job.until(lambda state: state.role("t").count("running", "pending", "leaving") == 1)
    job.backend.scale({"t": None})
    job.until(lambda state: state.role("t").held is None)

    # The coordinator decides again, and may have had one more started by now.
    assert those_who_joined() >= workers or not engine.keeps_logs
    job.until_logged("student", "the student is here")
    (node,), (coordinator,) = (state.role(name).processes for name in ("student", "coordinator"))
    assert f"{node.id}: the student is here" in list(job.backend.logs())
    assert any(line.startswith(f"{coordinator.id}: ") for line in job.backend.logs())


def test_a_stopped_job_saves_and_stays_stopped_until_it_is_started_again(
    start: Start, engine: Engine
) -> None:
    job = start()
    job.until_logged("student", "the student is here")
    job.backend.stop()
    assert engine.left_behind(job.output) == []
    state = job.backend.state()
    assert state.phase == "failed" and state.reason
    assert all(process.phase in ENDED for role in state.roles for process in role.processes)
    assert any(line.endswith(": the student saves") for line in job.backend.logs("student"))
    job.backend.stop()
    with pytest.raises(LaunchError, match="does not run any more"):
        job.backend.scale({"t": 2})

    job.backend.start(job.plan)
    job.until_running()
    engine.finish(job.output)
    told = list(job.backend.logs("student", follow=True))
    assert told[-1].endswith(": the student is done")
    state = job.until(lambda state: state.phase in ENDED)
    assert (state.phase, state.reason) == ("succeeded", "")

    def workers(state: JobState) -> int:
        return sum(role.count("pending", "running", "leaving") for role in state.roles if role.name == "t")

    job.until(lambda state: workers(state) == 0)
    assert list(job.backend.logs("student"))[-1].endswith(": the student is done")
    job.backend.stop()
    assert job.backend.state().phase == "succeeded"
    with pytest.raises(LaunchError, match="does not run any more"):
        job.backend.scale({"t": 2})


@pytest.mark.slow
def test_a_student_that_does_not_leave_is_not_waited_for_longer_than_was_said(
    start: Start, engine: Engine
) -> None:
    job = start(student={"script": "student.py", "args": ["stubborn"]})
    job.until_logged("student", "the student is here")
    begun = time.monotonic()
    job.backend.stop(grace_s=0.5)
    assert time.monotonic() - begun < engine.soon_s
    assert job.backend.state().phase == "failed"


def test_what_an_engine_refuses_leaves_nothing_behind(engine: Engine, tmp_path: Path) -> None:
    write_scripts(tmp_path)
    output = tmp_path / "out" / "toy"
    plan, error, says = engine.refused(tmp_path, output)
    with pytest.raises(error, match=says):
        engine.backend(output).start(plan)
    assert not (tmp_path / "out").exists()
    assert engine.left_behind(output) == []


def test_a_folder_without_a_job_is_named(engine: Engine, tmp_path: Path) -> None:
    backend = engine.backend(tmp_path)
    for call in (
        backend.state,
        backend.stop,
        lambda: backend.scale({"t": 1}),
        lambda: list(backend.logs()),
    ):
        with pytest.raises(LaunchError, match=f"no job was started in {tmp_path}"):
            call()
