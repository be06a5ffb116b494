"""Which processes are queued, asked and cancelled, as the queue and the exit codes of processes change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edldist.config import load_job
from edldist_launch.plan.plan import Plan
from edldist_launch.slurm.layout import Layout
from edldist_launch.slurm.placement import RELEASE_AFTER_S, UNREADY_STARTS, Acts, Note, Placement, Seen
from edldist_launch.slurm.queued import QueuedTask
from tests.unit.jobs import MINIMAL

JOB = ["teachers.0.replicas={min: 1, max: 8}", "student.nnodes=1:3"]
GRACE_S = 30.0
LEFT = 143


class Cluster:
    """A queue for one placement, in which jobs start as soon as they are queued, unless they are to wait."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        (folder / "job.yaml").write_text(MINIMAL)
        self.plan = Plan(load_job(folder / "job.yaml", [*JOB, *overrides]), folder, Path("/out"))
        self.layout = Layout.of(self.plan)
        self.placement = Placement(self.plan, GRACE_S)
        self.queue: dict[str, QueuedTask] = {}
        self.ended: dict[str, int] = {}
        self.wanted = {"teacher": 2, "student": 2}
        self.leaving: list[str] = []
        self.joined: set[str] = set()
        self.stopping = False
        self.starts = True
        self.now = 0.0
        self.notes: list[str] = []
        self._jobs = 0
        self.add("coordinator", None)

    def add(self, role: str, index: int | None, state: str = "RUNNING") -> str:
        self._jobs += 1
        engine_id = str(self._jobs) if index is None else f"{self._jobs}_{index}"
        name = self.layout.queue_name(self.plan.role(role).kind, role)
        self.queue[engine_id] = QueuedTask(engine_id, name, index, state, "n1" if state == "RUNNING" else "")
        return engine_id

    def of(self, role: str) -> dict[int, str]:
        """Engine ids of a role's tasks, by index."""
        name = self.layout.queue_name(self.plan.role(role).kind, role)
        return {
            t.index: t.engine_id for t in self.queue.values() if t.queue_name == name and t.index is not None
        }

    def turn(self, seconds: float = 1.0) -> Acts:
        self.now += seconds
        acts = self.placement.turn(
            Seen(
                list(self.queue.values()),
                dict(self.ended),
                dict(self.wanted),
                list(self.leaving),
                set(self.joined),
                self.stopping,
            ),
            self.now,
        )
        self.notes += [f"{note.process} {note.what}" for note in acts.notes]
        for role, indices in acts.submit.items():
            for index in indices:
                self.ended.pop(f"{role}-{index}", None)
                self.add(role, index, "RUNNING" if self.starts else "PENDING")
            self.placement.placed(role, indices)
        if acts.standby:
            self.add("coordinator", None, "PENDING")
        for engine_id in acts.cancel:
            self.queue.pop(engine_id, None)
        return acts

    def state(self, engine_id: str, state: str) -> None:
        task = self.queue[engine_id]
        where = "n1" if state == "RUNNING" else ""
        self.queue[engine_id] = QueuedTask(engine_id, task.queue_name, task.index, state, where)

    def end(self, role: str, index: int, code: int | None) -> None:
        """A process is gone; without a code it was killed."""
        del self.queue[self.of(role)[index]]
        if code is not None:
            self.ended[f"{role}-{index}"] = code


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = Cluster(tmp_path)
    for role in ("teacher", "student"):
        for index in range(2):
            made.add(role, index)
    made.turn()
    return made


def idle(acts: Acts) -> bool:
    return not (acts.submit or acts.ask or acts.cancel or acts.outcome)


def test_what_is_there_is_left_alone_and_a_coordinator_waits_to_take_over(cluster: Cluster) -> None:
    assert len(cluster.queue) == 1 + 1 + 2 + 2
    for _ in range(5):
        acts = cluster.turn()
        assert idle(acts) and not acts.standby
    assert sorted(cluster.notes) == [
        *("student-0 started", "student-1 started", "teacher-0 started", "teacher-1 started")
    ]


def test_a_task_that_slurm_could_not_start_tries_again_after_a_while(cluster: Cluster) -> None:
    engine_id = cluster.of("student")[1]
    held = replace(cluster.queue[engine_id], state="PENDING", reason="launch failed requeued held")
    for _ in range(2):
        cluster.queue[engine_id] = held
        assert cluster.turn().release == [] and cluster.turn(RELEASE_AFTER_S).release == []
        acts = cluster.turn()
        assert acts.release == [engine_id] and idle(acts)
    cluster.state(engine_id, "RUNNING")  # before it was released: of its own, or by somebody
    assert cluster.turn(RELEASE_AFTER_S).release == cluster.turn(RELEASE_AFTER_S).release == []
    cluster.queue[engine_id] = replace(held, reason="JobHeldUser")
    assert cluster.turn().release == cluster.turn(2 * RELEASE_AFTER_S).release == [], "that one has a reason"
    cluster.queue[engine_id] = held
    cluster.turn()
    cluster.stopping = True
    assert cluster.turn(2 * RELEASE_AFTER_S).release == []


def test_a_coordinator_that_waited_and_took_over_is_followed_by_another(cluster: Cluster) -> None:
    name = cluster.layout.queue_name("coordinator", "coordinator")
    first, second = (task.engine_id for task in cluster.queue.values() if task.queue_name == name)
    del cluster.queue[first]
    cluster.state(second, "RUNNING")
    assert cluster.turn().standby and not cluster.turn().standby


def test_more_are_queued_under_the_lowest_free_names(cluster: Cluster) -> None:
    cluster.wanted["teacher"] = 5
    assert cluster.turn().submit == {"teacher": [2, 3, 4]}
    assert idle(cluster.turn()) and sorted(cluster.of("teacher")) == [0, 1, 2, 3, 4]


def test_fewer_those_first_that_wait_then_those_that_should_leave(cluster: Cluster) -> None:
    cluster.starts = False
    cluster.wanted["teacher"] = 4
    cluster.turn()
    cluster.leaving = ["teacher-0", "teacher-1"]
    cluster.wanted["teacher"] = 1
    waiting = [cluster.of("teacher")[index] for index in (3, 2)]
    first = cluster.of("teacher")[0]
    acts = cluster.turn()
    assert sorted(acts.cancel) == sorted(waiting) and acts.ask == [first] and not acts.submit
    assert idle(cluster.turn()), "nobody is asked twice"
    cluster.end("teacher", 0, LEFT)
    assert idle(cluster.turn()) and cluster.notes[-1] == "teacher-0 stopped"
    cluster.wanted["teacher"] = 2
    assert cluster.turn().submit == {"teacher": [0]}


def test_who_has_left_is_told_once(cluster: Cluster) -> None:
    cluster.wanted["teacher"] = 1
    cluster.turn()
    cluster.end("teacher", 1, LEFT)  # and what it left behind stays there
    for _ in range(5):
        assert idle(cluster.turn())
    assert cluster.notes.count("teacher-1 stopped") == 1


def test_without_a_word_from_the_coordinator_the_youngest_leave(cluster: Cluster) -> None:
    cluster.wanted["student"] = 1
    assert cluster.turn().ask == [cluster.of("student")[1]]


def test_nobody_has_to_know_how_many_are_wanted(cluster: Cluster) -> None:
    del cluster.wanted["teacher"]
    assert idle(cluster.turn())
    cluster.end("teacher", 1, 1)
    assert idle(cluster.turn())
    assert cluster.turn().submit == {"teacher": [1]}, "it crashed, and comes back"


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_who_does_not_leave_in_time_is_cancelled(cluster: Cluster, role: str) -> None:
    cluster.wanted[role] = 1
    engine_id = cluster.of(role)[1]
    assert cluster.turn().ask == [engine_id]
    assert idle(cluster.turn(GRACE_S - 1))
    assert cluster.turn(2.0).cancel == [engine_id]


def test_who_was_asked_and_is_requeued_before_it_left_does_not_come_back(cluster: Cluster) -> None:
    cluster.wanted["teacher"] = 1
    (engine_id,) = cluster.turn().ask
    cluster.state(engine_id, "PENDING")
    assert cluster.turn().cancel == [engine_id]


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_what_slurm_requeues_comes_back_by_itself(cluster: Cluster, role: str) -> None:
    engine_id = cluster.of(role)[1]
    cluster.ended[f"{role}-1"] = LEFT  # its script was told by Slurm, and says so
    cluster.state(engine_id, "PENDING")
    assert idle(cluster.turn(100.0)) and cluster.notes[-1] == f"{role}-1 requeued"
    cluster.state(engine_id, "RUNNING")
    assert idle(cluster.turn()) and cluster.notes[-1] == f"{role}-1 started"


@pytest.mark.parametrize("role", ["teacher", "student"])
@pytest.mark.parametrize("code", [None, 138, 143])
def test_who_was_told_by_others_or_killed_is_queued_again(
    cluster: Cluster, role: str, code: int | None
) -> None:
    cluster.end(role, 0, code)
    submitted = [acts.submit for acts in (cluster.turn(), cluster.turn())]
    assert {role: [0]} in submitted and idle(cluster.turn())


def test_a_worker_that_crashes_is_queued_again_later_and_later(cluster: Cluster) -> None:
    cluster.joined = {"teacher-0"}
    cluster.turn()
    delays = []
    for _ in range(4):
        cluster.end("teacher", 0, 1)
        began = cluster.now
        while not cluster.turn(0.5).submit:
            pass
        delays.append(cluster.now - began)
    assert delays == sorted(delays) and delays[-1] >= 4 * delays[0]
    assert cluster.notes.count("teacher-0 crashed") == 4


def test_a_worker_that_never_joins_is_given_up_and_the_job_with_it(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "teachers.0.replicas=2")
    for role in ("teacher", "student"):
        for index in range(2):
            cluster.add(role, index)
    cluster.turn()
    for _ in range(UNREADY_STARTS - 1):
        cluster.end("teacher", 0, 1)
        assert any(cluster.turn(5.0).submit for _ in range(20))
    cluster.end("teacher", 0, 1)
    outcome = cluster.turn().outcome
    assert outcome is not None and outcome.status == "failed" and outcome.process == "teacher-0"


def test_a_job_that_needs_fewer_goes_on_without_those_that_cannot_work(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, "teachers.0.replicas=2", "teachers.0.min_replicas=1")
    for role in ("teacher", "student"):
        for index in range(2):
            cluster.add(role, index)
    cluster.turn()
    cluster.end("teacher", 1, 3)  # another model than that of its group
    assert idle(cluster.turn()) and cluster.notes[-1] == "teacher-1 hopeless"
    assert idle(cluster.turn(100.0)), "its place is not given to another one"
    cluster.end("teacher", 0, 3)
    outcome = cluster.turn().outcome
    assert outcome is not None and outcome.status == "failed"


@pytest.mark.parametrize("code", [1, 2])
def test_a_script_that_fails_fails_the_job(cluster: Cluster, code: int) -> None:
    cluster.end("student", 1, code)
    outcome = cluster.turn().outcome
    assert outcome is not None and (outcome.status, outcome.process) == ("failed", "student-1")


def test_a_job_is_complete_when_its_nodes_have_ended_and_who_waits_is_late(cluster: Cluster) -> None:
    cluster.starts = False
    cluster.wanted["student"] = 3
    cluster.turn()
    late = cluster.of("student")[2]
    cluster.end("student", 0, 0)
    acts = cluster.turn()
    assert acts.cancel == [late] and acts.outcome is None
    cluster.end("student", 1, 0)
    acts = cluster.turn()
    assert acts.outcome is not None and acts.outcome.status == "completed" and not acts.standby


def test_a_job_that_is_asked_to_end_gets_nothing_new_and_ends_when_its_nodes_are_gone(
    cluster: Cluster,
) -> None:
    cluster.end("teacher", 0, 1)
    cluster.turn()
    cluster.stopping = True
    cluster.end("student", 0, LEFT)
    assert idle(cluster.turn(100.0))
    cluster.end("student", 1, LEFT)
    outcome = cluster.turn().outcome
    assert outcome is not None and outcome.status == "interrupted"


def test_one_that_takes_over_knows_what_was_before(cluster: Cluster) -> None:
    cluster.wanted["teacher"] = 3
    cluster.turn()
    cluster.end("student", 0, 0)
    cluster.end("teacher", 2, 1)
    cluster.placement = Placement(cluster.plan, GRACE_S)
    assert idle(cluster.turn())
    assert cluster.turn().submit == {"teacher": [2]}
    cluster.end("student", 1, 0)
    outcome = cluster.turn().outcome
    assert outcome is not None and outcome.status == "completed"


def test_a_task_that_could_not_be_queued_is_tried_again(cluster: Cluster) -> None:
    cluster.wanted["teacher"] = 3
    seen = Seen(list(cluster.queue.values()), {}, cluster.wanted)
    for moment in (10.0, 20.0):  # nobody says that it was placed
        assert cluster.placement.turn(seen, moment).submit == {"teacher": [2]}


def test_notes_say_where_and_why(cluster: Cluster) -> None:
    cluster.end("teacher", 1, 1)
    (note,) = cluster.turn().notes
    assert note == Note(cluster.plan.role("teacher"), "teacher-1", "crashed", "n1", 1, 0.5)
