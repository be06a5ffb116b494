"""The placer of a job on Slurm: what it does with its coordinator, the queue and the folder, turn by turn."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edldist.clock import FakeClock
from edldist.config import load_job
from edldist.wire.messages import Event, GroupStatus, Status
from edldist_launch.contract.wishes import write_wishes
from edldist_launch.plan.plan import Plan
from edldist_launch.process.exits import EXIT_STOPPED
from edldist_launch.slurm import placer as module
from edldist_launch.slurm.backend import SlurmBackend
from edldist_launch.slurm.files import JobFiles
from edldist_launch.slurm.layout import Layout
from edldist_launch.view.observers import Observers
from tests.unit.fake_slurm import FakeSlurm
from tests.unit.jobs import MINIMAL

MOST_TICKS = 4_000


class Watching:
    """Stands for the observers: what they are told, and what they know of the coordinator."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.known: tuple[str, list[GroupStatus]] | None = None
        self.finished: list[tuple[str, str, str]] = []
        self.looked_while_stopping = 0

    def event(self, name: str, /, **fields: Any) -> None:
        self.events.append((name, str(fields.get("id", ""))))

    def look(self, client: object, timeout_s: float, stopping: bool) -> None:
        self.looked_while_stopping += stopping

    def groups(self) -> tuple[str, list[GroupStatus]] | None:
        return self.known

    def joined(self) -> set[str]:
        return set()

    def hand_over(self) -> None:
        self.events.append(("handed_over", ""))

    def students_done(self) -> None:
        self.events.append(("students_done", ""))

    def crashed(self, process: str) -> None:
        self.events.append(("told_as_crashed", process))

    def finish(self, status: str, reason: str, seconds: float, last_words: str) -> None:
        self.finished.append((status, reason, last_words))


class Coordinator:
    """Stands for the child."""

    id = "coordinator"
    killed = False

    def kill(self) -> None:
        self.killed = True


class Rig:
    """A job on a fake cluster, and its placer; ``then`` is what happens from tick to tick."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "given.yaml").write_text(MINIMAL)
        overrides = ["teachers.0.replicas={min: 1, max: 8}", "student.nnodes=1:2", "slurm={poll_s: 1}"]
        self.plan = Plan(load_job(folder / "given.yaml", overrides), folder, folder / "out")
        self.slurm, self.clock, self.watching = FakeSlurm(), FakeClock(), Watching()
        self.coordinator = Coordinator()
        SlurmBackend(self.plan.output, slurm=self.slurm).start(self.plan)
        self.slurm.run("1", "2_0", "3_0", "3_1")
        self.slurm.submitted.clear()
        self.files = JobFiles(Layout.of(self.plan))
        self.interrupts = SimpleNamespace(asked=False)
        self._ticks = 0
        self._then: list[tuple[Callable[[], object], Callable[[], object]]] = []
        fleet = SimpleNamespace(
            start=lambda now: [None],
            tick=lambda now: [],
            seen=lambda ids: None,
            children=[self.coordinator],
        )
        monkeypatch.setattr(module, "Fleet", lambda *about, **more: fleet)
        monkeypatch.setattr(module, "StatusClient", lambda address: SimpleNamespace(close=lambda: None))
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=self._sleep))

    def when(self, there: Callable[[], object], happens: Callable[[], object]) -> None:
        """In their order, each once: what happens as soon as something is true."""
        self._then.append((there, happens))

    def run(self) -> int:
        record: Any = SimpleNamespace(log_path=lambda *about: self.plan.output / "log")
        watching: Any = self.watching
        placer = module.Placer(self.plan, self.slurm, record, watching, "me", self.clock)
        interrupts: Any = self.interrupts
        return placer.run(interrupts)

    def leave(self, engine_id: str, process: str, code: int) -> None:
        (self.files.layout.ended / process).write_text(f"{code}\n")
        self.slurm.end(engine_id)

    def students_finish(self) -> None:
        for number in (0, 1):
            self.leave(f"3_{number}", f"student-{number}", 0)

    def _sleep(self, seconds: float) -> None:
        self._ticks += 1
        assert self._ticks < MOST_TICKS, f"nothing ends it: {self.slurm.tasks}, {self.watching.events}"
        self.clock.advance(seconds)
        if self._then and self._then[0][0]():
            self._then.pop(0)[1]()


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(tmp_path, monkeypatch)


def test_a_placer_goes_on_with_the_figures_of_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Rig(tmp_path, monkeypatch)

    class Sees:
        """A placer that sees a student come and go, and is asked to leave, or sees the end."""

        def __init__(
            self, plan: Plan, slurm: object, record: object, observers: Observers, name: str
        ) -> None:
            self._observers = observers

        def run(self, interrupts: object) -> int:
            life = len(lives)
            lives.append(life)
            gone = Event(event="student_left", t=1.0, fields={"id": f"rank0-{life}", "samples": 10})
            seen = Status(incarnation=f"i{life}", uptime_s=1.0, members=[], records=[gone], seq=1)
            self._observers.take(seen, stopping=False)
            if life == 2:
                self._observers.finish("completed", "", 1.0)
            return 0

    lives: list[int] = []
    monkeypatch.setattr(module, "Placer", Sees)
    for _ in range(3):
        module.run_placer(made.plan.output, made.slurm)
    assert json.loads((made.plan.output / "result.json").read_text())["samples"] == 30
    lives[:] = [0, 1]
    module.run_placer(made.plan.output, made.slurm)
    assert json.loads((made.plan.output / "result.json").read_text())["samples"] == 10, "that job had ended"


def test_one_waits_to_take_over_and_goes_with_the_workers_when_the_students_are_done(rig: Rig) -> None:
    rig.when(lambda: rig.slurm.submitted, rig.students_finish)
    rig.when(lambda: rig.slurm.asked, lambda: rig.leave("2_0", "teacher-0", 143))
    assert rig.run() == 0
    assert [path.name for path, _ in rig.slurm.submitted] == ["coordinator.sh"]
    assert rig.slurm.asked == ["2_0"] and rig.slurm.cancelled == ["4"], "the worker, and who waited"
    assert list(rig.slurm.tasks) == ["1"], "its own job"
    assert rig.watching.finished == [("completed", "", "")]
    assert rig.coordinator.killed and rig.files.in_charge("me")
    names = [name for name, _ in rig.watching.events]
    assert names.index("placer_started") < names.index("student_stopped") < names.index("students_done")


def test_a_worker_that_does_not_leave_at_the_end_is_cancelled(rig: Rig) -> None:
    rig.when(lambda: rig.slurm.submitted, rig.students_finish)
    assert rig.run() == 0
    assert "2_0" in rig.slurm.cancelled and rig.clock.monotonic() > rig.plan.job.grace.kill_s


def test_a_student_that_failed_ends_the_job_with_its_own_words(rig: Rig) -> None:
    log = rig.files.layout.log_folder("student-1") / "0" / "log"
    log.parent.mkdir(parents=True)
    log.write_text("training\nValueError: no such column\n")
    rig.when(lambda: rig.slurm.submitted, lambda: rig.leave("3_1", "student-1", 1))
    assert rig.run() == 0
    ((status, reason, last_words),) = rig.watching.finished
    assert (status, reason) == ("failed", "the student failed: ValueError: no such column")
    assert last_words.startswith("--- the last lines of student-1:\ntraining\n")
    assert {"3_0", "2_0"} <= set(rig.slurm.asked)


def test_what_the_coordinator_and_a_person_want_is_placed_and_told(rig: Rig) -> None:
    group = GroupStatus(
        name="teacher", workers=1, draining=0, wanted=3, least=1, most=8, held=None,
        demand=None, capacity=None, by_device={}, starved=None, leaving=[], why="",
    )  # fmt: skip
    (rig.files.layout.ended / "teacher-1").write_text("143\n")  # of an earlier worker of that name
    rig.watching.known = ("inc", [group])
    write_wishes(rig.plan.output, {"student": 1})
    rig.when(lambda: len(rig.slurm.submitted) == 2, lambda: setattr(rig.interrupts, "asked", True))
    assert rig.run() == EXIT_STOPPED
    given = {path.name: options for path, options in rig.slurm.submitted}
    assert given == {"teacher.teacher.sh": ("--array=1,2",), "coordinator.sh": ()}
    assert rig.slurm.asked == ["3_1"], "the person wants one node, and the youngest leaves"
    assert rig.files.wanted() == {"student": 1, "teacher": 3}
    assert "teacher-1" not in rig.files.ended()


def test_a_worker_that_cannot_work_is_told_of_with_its_own_words(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    log = rig.files.layout.log_folder("teacher-0") / "0" / "log"
    log.parent.mkdir(parents=True)
    log.write_text("error: teacher-0 is not like teacher-1: weights X instead of Y\n")
    rig.when(lambda: rig.slurm.submitted, lambda: rig.leave("2_0", "teacher-0", 3))
    assert rig.run() == 0
    said = [record.getMessage() for record in caplog.records if "cannot work" in record.message]
    assert said == ["teacher-0 cannot work on n1: teacher-0 is not like teacher-1: weights X instead of Y"]


def test_a_worker_that_crashed_is_told_of_and_queued_again(rig: Rig) -> None:
    rig.when(lambda: rig.slurm.submitted, lambda: rig.leave("2_0", "teacher-0", 1))
    rig.when(lambda: len(rig.slurm.submitted) == 2, lambda: setattr(rig.interrupts, "asked", True))
    assert rig.run() == EXIT_STOPPED
    assert rig.slurm.submitted[1][1] == ("--array=0",)
    assert ("told_as_crashed", "teacher-0") in rig.watching.events


def test_one_that_is_asked_to_leave_takes_nothing_along_but_its_coordinator(rig: Rig) -> None:
    rig.when(lambda: rig.slurm.submitted, lambda: setattr(rig.interrupts, "asked", True))
    assert rig.run() == EXIT_STOPPED
    assert rig.coordinator.killed and rig.watching.finished == []
    assert rig.watching.events[-1] == ("handed_over", ""), "its successor goes on with the latest figures"
    assert rig.slurm.asked == rig.slurm.cancelled == [] and len(rig.slurm.tasks) == 5


def test_a_task_that_slurm_could_not_start_is_released(rig: Rig) -> None:
    held = replace(rig.slurm.tasks["3_1"], state="PENDING", reason="launch failed requeued held")
    rig.slurm.tasks["3_1"] = held
    rig.slurm.held.add("3_1")
    former = len(rig.slurm.released)
    rig.when(lambda: len(rig.slurm.released) > former, lambda: setattr(rig.interrupts, "asked", True))
    assert rig.run() == EXIT_STOPPED
    assert rig.slurm.released[former:] == ["3_1"] and rig.slurm.cancelled == []


def test_one_whose_host_was_cut_off_leaves_the_job_to_its_successor(rig: Rig) -> None:
    rig.when(lambda: rig.slurm.submitted, lambda: rig.files.take_charge("another"))
    assert rig.run() == 0
    assert rig.coordinator.killed and rig.watching.finished == []
    assert rig.slurm.asked == rig.slurm.cancelled == [] and rig.files.in_charge("another")


def test_while_slurm_does_not_answer_nothing_is_taken_for_gone(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.slurm.silent = {"queue"}
    heals = rig.clock.monotonic() + 60
    rig.when(lambda: rig.clock.monotonic() > heals, rig.slurm.silent.clear)
    rig.when(lambda: rig.slurm.submitted, rig.students_finish)
    rig.when(lambda: rig.slurm.asked, lambda: rig.leave("2_0", "teacher-0", 143))
    assert rig.run() == 0
    assert rig.watching.finished == [("completed", "", "")]
    said = [record.getMessage() for record in caplog.records if "nothing is placed now" in record.message]
    assert said and "Unable to contact slurm controller" in said[0]


def test_a_job_that_is_stopped_by_a_person_ends_as_interrupted(rig: Rig) -> None:
    def stop() -> None:
        rig.files.ask_stop()
        for number in (0, 1):
            rig.leave(f"3_{number}", f"student-{number}", 143)

    rig.when(lambda: rig.slurm.submitted, stop)
    rig.when(lambda: rig.slurm.asked, lambda: rig.leave("2_0", "teacher-0", 143))
    assert rig.run() == 0
    assert rig.watching.finished[0][0] == "interrupted"
