"""Ranks and nodes of a student are killed, frozen, taken away and added: every sample still counts once.

Starting processes takes longer than most faults, so one job meets several of them in turn.
"""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.fault.books import (
    STEADY,
    Plan,
    assert_as_quiet,
    hurry,
    last_step,
    quiet_run,
    rank_books,
    redone,
    world,
)
from tests.fault.harness import ROOT, FaultJob, Role, fault_job, flags, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]

PAIR = Plan(samples=4000, batch_size=20, epochs=2)
ELASTIC = Plan(samples=12_000, batch_size=20)
RECOVERY_S = 60.0
"""Bound on each wait; a recovery takes 5 to 10 s on an idle machine, and the machine may be busy."""

GRACE_S = 30.0
LEAVING_STEPS = 10
"""Between the signal and the step after which all ranks leave; one, if the machine is idle."""


def rank_of(job: FaultJob, rank: int) -> psutil.Process:
    """The process that took this rank's last step."""
    return psutil.Process(rank_books(job)[rank][-1]["pid"])


def await_steps(job: FaultJob, more: int) -> None:
    job.await_step(last_step(job) + more, RECOVERY_S)


def await_new_ranks(job: FaultJob, old: set[int]) -> None:
    """Wait until a group without any of the old processes has taken a step."""
    wait_for("steps of new ranks", lambda: job.steps()[-1]["pid"] not in old, RECOVERY_S)


def pids(node: Role) -> set[int]:
    return {process.pid for process in node.ranks()}


def gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def start(job: FaultJob, teachers: int = 2) -> None:
    job.coordinator()
    for number in range(teachers):
        job.teacher(f"t-{number}")


def assert_labels_came_at_once(job: FaultJob) -> None:
    """Teachers' links follow restarted ranks: none of the present ones waited long for its first labels."""

    def waits() -> list[float]:
        students = [m for m in job.status().members if m.role == "student"]
        here = [float(m.stats.get("startup_s") or 0) for m in students if m.stats.get("batches")]
        return here if len(here) == len(students) and here else []

    assert max(wait_for("figures of all ranks", waits)) < 1.0


# --- one node -------------------------------------------------------------------------------------


def test_killed_and_frozen_ranks_leave_the_weights_as_they_were(tmp_path: Path) -> None:
    quiet = quiet_run(tmp_path / "quiet", PAIR, nproc=2, task_size=5)
    with fault_job(tmp_path, model=STEADY, deterministic=True, task_size=5) as job:
        start(job)
        node = job.student(nproc=2, **PAIR.args(job, step_s=0.05))
        job.await_step(25)

        former = pids(node)
        victim = rank_of(job, 1)
        victim.kill()
        await_new_ranks(job, former)
        assert gone(victim) and not pids(node) & former
        assert_labels_came_at_once(job)
        await_steps(job, 15)

        former = pids(node)
        frozen = rank_of(job, 0)
        frozen.send_signal(signal.SIGSTOP)
        await_new_ranks(job, former)
        assert gone(frozen)
        assert "written off by the coordinator" in node.log.read_text()
        assert len(job.events("student_lost")) >= 2
        assert_labels_came_at_once(job)
        await_steps(job, 15)

        hurry(job)
        done = job.finish(node)
        assert redone(job) > 0
        assert_as_quiet(job, done, PAIR, quiet, bitwise=True)


def test_a_rank_of_its_own_that_stood_still_goes_on_and_a_frozen_one_is_replaced(tmp_path: Path) -> None:
    with fault_job(tmp_path, model=STEADY) as job:
        start(job)
        node = job.student(**PAIR.args(job, step_s=0.05))
        job.await_step(15)
        former = pids(node)
        (rank,) = node.ranks()
        rank.send_signal(signal.SIGSTOP)
        wait_for("the coordinator to lose it", lambda: job.events("student_lost"))
        rank.send_signal(signal.SIGCONT)
        await_steps(job, 15)
        assert pids(node) == former and redone(job) == 0

        rank.send_signal(signal.SIGSTOP)
        await_new_ranks(job, former)
        assert gone(rank)
        await_steps(job, 15)
        hurry(job)
        assert job.finish(node)["counts"] == [PAIR.epochs]


def test_restarts_that_came_further_are_not_counted_against_a_node(tmp_path: Path) -> None:
    with fault_job(tmp_path, model=STEADY) as job:
        start(job)
        node = job.student(env={"EDLDIST_MAX_RESTARTS": "1"}, **PAIR.args(job, step_s=0.05))
        job.await_step(15)
        for _ in range(3):
            former, reached = pids(node), max(step["step"] for step in job.steps())
            rank_of(job, 0).kill()
            await_new_ranks(job, former)
            job.await_step(reached + 50)  # several heartbeats further
        hurry(job)
        done = job.finish(node)
        assert redone(job) > 0
        assert done["counts"] == [PAIR.epochs]
        assert "came further since the last time" in node.log.read_text()


def test_a_node_of_its_own_saves_at_the_next_step_when_it_is_asked_to_leave(tmp_path: Path) -> None:
    quiet = quiet_run(tmp_path / "quiet", PAIR, nproc=2, task_size=5)
    with fault_job(tmp_path, model=STEADY, deterministic=True, task_size=5, checkpoint_every=1000) as job:
        start(job)
        args = PAIR.args(job, step_s=0.05)
        node = job.student(nproc=2, **args)
        job.await_step(15)
        ranks = node.ranks()
        asked_at = last_step(job)
        node.send(signal.SIGTERM)
        assert node.wait(GRACE_S) == 143, node.tail()
        left_at = last_step(job)
        assert left_at - asked_at <= LEAVING_STEPS
        assert all(gone(rank) for rank in ranks)

        again = job.student("student-again", nproc=2, **args)
        job.await_step(left_at + 10, 120)
        hurry(job)
        done = job.finish(again)
        assert redone(job) == 0, "it had not saved the step at which it left"
        assert_as_quiet(job, done, PAIR, quiet, bitwise=True)


# --- many nodes -----------------------------------------------------------------------------------


def test_nodes_die_freeze_leave_and_join_and_every_sample_counts_once(tmp_path: Path) -> None:
    quiet = quiet_run(tmp_path / "quiet", ELASTIC)
    with fault_job(tmp_path, model=STEADY) as job:
        start(job)
        args = ELASTIC.args(job, step_s=0.1)

        def node(number: int) -> Role:
            return job.student(f"student-{number}", nnodes="1:3", **args)

        def await_world(size: int) -> None:
            wait_for(f"a step of {size} ranks", lambda: world(job) == size, RECOVERY_S)
            await_steps(job, 12)

        nodes = {0: node(0), 1: node(1)}
        await_world(2)
        nodes[2] = node(2)
        await_world(3)
        assert_labels_came_at_once(job)

        # The node of rank 0, with everything on it.
        first = rank_of(job, 0).pid
        leader = next(number for number, role in nodes.items() if first in pids(role))
        victims = nodes.pop(leader)
        tree = victims.tree()
        victims.kill_tree()
        await_world(2)
        assert all(gone(process) for process in tree)
        assert rank_of(job, 0).pid != first

        # A node joins although rank 0 has moved.
        nodes[3] = node(3)
        await_world(3)

        # A rank freezes: the others cannot know, the coordinator tells them.
        held = nodes[min(nodes)]
        frozen = held.ranks()[0]
        former = {process.pid for role in nodes.values() for process in role.ranks()}
        frozen.send_signal(signal.SIGSTOP)
        await_new_ranks(job, former)
        wait_for("the frozen rank to be killed", lambda: gone(frozen))
        assert "written off by the coordinator" in held.log.read_text()
        await_world(3)

        # The node that holds the last rank.
        last = rank_of(job, 2).pid
        number = next(number for number, role in nodes.items() if last in pids(role))
        nodes.pop(number).kill_tree()
        await_world(2)

        # A node is preempted: checkpoint, leave, and nothing is lost.
        number = min(nodes)
        preempted = nodes.pop(number)
        asked = time.monotonic()
        preempted.send(signal.SIGTERM)
        assert preempted.wait(RECOVERY_S) == 143
        left_after_s = time.monotonic() - asked
        assert left_after_s < 15, "the grace is 25 s; the checkpoint is tiny"
        wait_for("a step of 1 rank", lambda: world(job) == 1, RECOVERY_S)
        alone = [r["step"] for r in job.steps() if r["world"] == 1]
        together = [r["step"] for r in job.steps() if r["world"] > 1]
        assert min(alone) == max(together) + 1, "the others went on from another checkpoint"
        assert_labels_came_at_once(job)

        hurry(job)
        done = job.finish(nodes.popitem()[1])
        assert redone(job) > 0
        assert_as_quiet(job, done, ELASTIC, quiet, bitwise=False)
        assert {r["world"] for r in job.steps()} == {1, 2, 3}


def test_a_killed_agent_of_several_nodes_is_replaced_and_meets_the_others(tmp_path: Path) -> None:
    quiet = quiet_run(tmp_path / "quiet", PAIR)
    with fault_job(tmp_path, model=STEADY) as job:
        start(job)
        nodes = [job.student(f"student-{n}", nnodes="1:2", **PAIR.args(job, step_s=0.05)) for n in range(2)]
        wait_for("a group of two", lambda: world(job) == 2, RECOVERY_S)
        await_steps(job, 15)
        former = pids(nodes[0]) | pids(nodes[1])
        agent = find(psutil.Process(nodes[0].pid), "/agent.py")
        assert agent is not None
        agent.kill()

        def met() -> bool:
            return job.steps()[-1]["pid"] not in former and world(job) == 2

        wait_for("a group of two new ranks", met, RECOVERY_S)
        assert "the agent of this node ended by itself (signal 9)" in nodes[0].log.read_text()
        assert "ended by itself" not in nodes[1].log.read_text()
        await_steps(job, 15)
        hurry(job)
        done = job.finish(nodes[0])
        assert nodes[1].wait(60) == 0 and redone(job) > 0
        assert_as_quiet(job, done, PAIR, quiet, bitwise=False)


# --- supervisors ----------------------------------------------------------------------------------

JOB = """
name: supervised
teachers: [{{name: teacher, model: "{model}", replicas: 1, batch_size: 10}}]
student:
  script: {script}
  args: [{args}]
  nproc_per_node: 2
  env: {{OMP_NUM_THREADS: "1"}}
checkpoint: {{every_steps: {every_steps}}}
"""


def pair_file(job: FaultJob, every_steps: int) -> Path:
    """A job file for ``edldist run``: the plan ``PAIR`` on two ranks, with a checkpoint now and then."""
    path = job.folder / "job.yaml"
    path.write_text(
        JOB.format(
            model=STEADY,
            script=ROOT / "tests" / "fault" / "train.py",
            args=", ".join(map(json.dumps, flags(PAIR.args(job, step_s=0.05)))),
            every_steps=every_steps,
        )
    )
    return path


def find(root: psutil.Process, *words: str) -> psutil.Process | None:
    """The first process below ``root`` whose command has all words as arguments or their ends."""
    for process in [root, *root.children(recursive=True)]:
        try:
            command = process.cmdline()
        except psutil.Error:
            continue
        if all(any(part.endswith(word) for part in command) for word in words):
            return process
    return None


def test_a_killed_agent_and_a_killed_supervisor_leave_nothing_and_are_replaced(tmp_path: Path) -> None:
    with fault_job(tmp_path, model=STEADY) as job:
        run = job._start("run", "run", str(pair_file(job, every_steps=10)), "--output", str(job.output))
        for words in (("/agent.py",), ("__main__.py", "student")):
            job.await_step(last_step(job) + 15)
            supervisor = wait_for("the supervisor", lambda w=words: find(psutil.Process(run.pid), *w))
            below = supervisor.children(recursive=True)
            ranks = [p for p in below if p.pid in {r["pid"] for r in job.steps()[-4:]}]
            assert len(ranks) == 2
            supervisor.kill()
            wait_for("its processes to be gone", lambda b=below: all(gone(p) for p in b), 10)
            await_new_ranks(job, {p.pid for p in ranks})
        hurry(job)
        assert run.wait(60) == 0, run.tail()
        done = json.loads((job.output / "done.json").read_text())
        assert_as_quiet(job, done, PAIR, done, bitwise=False)
        lines = (job.output / "events.jsonl").read_text().splitlines()
        events = [json.loads(line)["event"] for line in lines]
        assert events.count("student_restarted") == 1, "the supervisor; it replaced the agent itself"
        logs = "".join(path.read_text() for path in (job.output / "logs").glob("student*.log"))
        assert logs.count("was ended by signal 9") == 1


def test_a_whole_job_that_is_asked_to_leave_saves_first_and_goes_on_from_there(tmp_path: Path) -> None:
    with fault_job(tmp_path, model=STEADY) as job:
        command = ("run", str(pair_file(job, every_steps=1000)), "--output", str(job.output))
        run = job._start("run", *command)
        job.await_step(15, 120)
        below = run.tree()
        asked = time.monotonic()
        run.send(signal.SIGTERM)
        assert run.wait(2 * GRACE_S) == 130, run.tail()
        assert time.monotonic() - asked < GRACE_S
        assert all(gone(process) for process in below)
        assert json.loads((job.output / "result.json").read_text())["status"] == "interrupted"
        left_at = last_step(job)

        again = job._start("run-again", *command)
        job.await_step(left_at + 10, 120)
        hurry(job)
        assert again.wait(90) == 0, again.tail()
        assert redone(job) == 0, "it had not saved the step at which it left"
        done = json.loads((job.output / "done.json").read_text())
        assert_as_quiet(job, done, PAIR, done, bitwise=False)


# --- scripts that cannot work ------------------------------------------------------------------------


def crashing_script(folder: Path) -> Path:
    """A script that adds a letter to the file ``starts`` and ends with an error."""
    script = folder / "crash.py"
    script.write_text(
        f"open({str(folder / 'starts')!r}, 'a').write('x')\nraise SystemExit('broken on purpose')\n"
    )
    return script


@pytest.mark.timeout(240)
def test_a_script_that_crashes_at_every_start_is_given_up(tmp_path: Path) -> None:
    with fault_job(tmp_path, model=STEADY) as job:
        job.coordinator()
        script = crashing_script(tmp_path)
        command = ("--coordinator", job.address, "--nnodes", "1:2", str(script))
        node = job._start("student", "student", *command)
        assert node.wait(180) == 1, node.tail()
        starts = len((tmp_path / "starts").read_text())
        assert 11 <= starts <= 13, starts  # the first one, ten restarts, and what it takes to notice
        assert "restarted 10 times in a row and came no further" in node.tail()
        assert "broken on purpose" in node.log.read_text()


def test_a_lone_node_tries_as_often_as_it_was_told(tmp_path: Path) -> None:
    with fault_job(tmp_path, model=STEADY) as job:
        job.coordinator()
        script = crashing_script(tmp_path)
        node = job._start(
            "student", *("student", "--coordinator", job.address, "--max-restarts", "2", str(script))
        )
        assert node.wait(120) == 1, node.tail()
        assert len((tmp_path / "starts").read_text()) == 3


def test_a_setting_that_cannot_work_is_not_tried_twice(tmp_path: Path) -> None:
    with fault_job(tmp_path, model=STEADY) as job:
        job.coordinator()
        node = job.student(nproc=2, samples=100, batch_size=1)
        assert node.wait(60) == 1, node.tail()
        log = node.log.read_text()
        assert "global_batch_size=1 cannot feed world_size=2 ranks" in log
        assert "a restart would not help, giving up: ConfigError" in log
        # Every rank raised, once: torchrun may have begun one more group before it was told.
        raised = log.count("edldist.errors.ConfigError: ElasticSampler")
        assert 2 <= raised <= 4, log


@pytest.mark.parametrize("nnodes", ["0", "3:2", "1:x", "-1"])
def test_an_impossible_node_range_is_refused_before_anything_starts(tmp_path: Path, nnodes: str) -> None:
    with fault_job(tmp_path) as job:
        job.address = "tcp://127.0.0.1:9"
        node = job.student(nnodes=nnodes)
        assert node.wait(20) == 2
        assert "nnodes" in node.tail() and nnodes in node.tail()
        assert not os.listdir(job.output)
