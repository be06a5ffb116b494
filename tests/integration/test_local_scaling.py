"""Slots come and go while ``edldist run`` runs: a real coordinator, stand-ins for teachers and students."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from edldist.errors import ConfigError, LaunchError
from edldist.wire.query import StatusClient
from edldist_launch.contract.backend import JobState, ProcessState
from edldist_launch.local.backend import LocalBackend
from edldist_launch.local.placement import read_placement
from edldist_launch.plan.commands import own_command
from tests.integration.launching import (
    IGNORE_TERM,
    SAVE_ON_TERM,
    Start,
    events,
    folder,
    pids,
    running,
    start,
    until,
    until_ready,
)

__all__ = ["folder", "start"]  # fixtures

pytestmark = pytest.mark.timeout(240)


def make_elastic(folder: Path, replicas: str = "{min: 1, max: 4}", nodes: str = "1") -> None:
    (folder / "job.yaml").write_text(
        f"name: toy\nteachers: [{{model: 'a:b', replicas: {replicas}}}]\n"
        f"student: {{script: s.py, nnodes: '{nodes}'}}\n"
    )


def state(folder: Path) -> JobState:
    found = read_placement(folder / "out")
    assert found is not None
    return found


def up(folder: Path, role: str, count: int) -> list[ProcessState]:
    """The processes of a role, once so many run and none leaves."""

    def found() -> tuple[ProcessState, ...] | None:
        placed = read_placement(folder / "out")
        if placed is None or placed.phase != "running":
            return None
        processes = placed.role(role).processes
        return processes if [each.phase for each in processes] == ["running"] * count else None

    return list(until(lambda: (processes := found()) is not None and (processes,))[0])


def test_a_persons_number_is_had_and_given_back(start: Start, folder: Path) -> None:
    make_elastic(folder)
    start(teacher=SAVE_ON_TERM)
    (first,) = up(folder, "teacher", 1)
    backend = LocalBackend(folder / "out")
    backend.scale({"teacher": 3})
    assert [each.id for each in up(folder, "teacher", 3)] == ["teacher-0", "teacher-1", "teacher-2"]
    assert (state(folder).role("teacher").wanted, state(folder).role("teacher").held) == (3, 3)
    backend.scale({"teacher": 1})
    assert up(folder, "teacher", 1) == [first], "the youngest leave first"
    assert {each["id"] for each in events(folder, "teacher_removed")} == {"teacher-1", "teacher-2"}
    assert not any(running(each["pid"]) for each in events(folder, "teacher_started")[1:])
    backend.scale({"teacher": 2})
    (_, again) = up(folder, "teacher", 2)
    assert again.id == "teacher-1.r1", "an id is given once"
    backend.scale({"teacher": None})
    assert state(folder).role("teacher").held is None


@pytest.mark.slow
def test_a_worker_that_does_not_leave_is_killed(start: Start, folder: Path) -> None:
    make_elastic(folder, "{min: 0, max: 4}")
    start(teacher=IGNORE_TERM, env={"GRACE_S": "0.5"})
    up(folder, "teacher", 1)
    until_ready(folder, "teacher-teacher-0")
    LocalBackend(folder / "out").scale({"teacher": 0})
    (gone,) = until(lambda: events(folder, "teacher_removed"))
    assert gone["code"] == -signal.SIGKILL
    up(folder, "teacher", 0)


@pytest.mark.parametrize(
    "asked", [pytest.param("in the folder", marks=pytest.mark.slow), "at the coordinator"]
)
def test_a_persons_number_outlives_the_coordinator(start: Start, folder: Path, asked: str) -> None:
    make_elastic(folder)
    start()
    up(folder, "teacher", 1)
    first = events(folder, "coordinator_started")[0]
    if asked == "in the folder":
        LocalBackend(folder / "out").scale({"teacher": 3})
    else:
        client = StatusClient(first["address"])
        assert client.scale("teacher", 3).group.held == 3
        client.close()
        until(lambda: state(folder).role("teacher").held == 3)
    up(folder, "teacher", 3)
    os.kill(first["pid"], signal.SIGKILL)
    until(lambda: len(events(folder, "coordinator_started")) == 2)

    def held() -> bool:
        client = StatusClient(first["address"])
        try:
            (group,) = client.query().groups
        finally:
            client.close()
        return group.held == group.wanted == 3

    until(held)
    assert len(up(folder, "teacher", 3)) == 3
    assert events(folder, "teacher_draining") == []


@pytest.mark.slow
def test_who_ends_with_a_launcher_that_hangs_is_not_left_to_its_own_grace(
    start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edldist_launch.local.backend.HURRY_S", 1.0)
    make_elastic(folder)
    job = start(teacher=IGNORE_TERM, student=IGNORE_TERM)
    up(folder, "teacher", 1)
    for name in ("teacher-teacher-0", "student-0"):
        until_ready(folder, name)
    job.send_signal(signal.SIGSTOP)
    LocalBackend(folder / "out").stop(grace_s=0.1)
    assert [pid for pid in pids(folder) if running(pid)] == []


def test_student_nodes_come_and_go(start: Start, folder: Path) -> None:
    make_elastic(folder, nodes="1:3")
    start(student=SAVE_ON_TERM.replace("sys.exit(1)", "sys.exit(130)"))
    up(folder, "student", 3)
    log = until_ready(folder, "student-2")
    backend = LocalBackend(folder / "out")
    backend.scale({"student": 2, "teacher": 2})
    up(folder, "student", 2)
    assert [each["id"] for each in events(folder, "student_removed")] == ["student-2"]
    assert log.read_text().endswith("saved\n")
    up(folder, "teacher", 2)
    backend.scale({"student": None})
    assert up(folder, "student", 3)[2].id == "student-2"


def test_no_node_is_started_for_a_job_that_comes_to_its_end(start: Start, folder: Path) -> None:
    """One node has finished; the others are about to."""
    make_elastic(folder, nodes="1:3")
    finish = "import os, time\nwhile not os.path.exists('enough' + os.environ['NODE']): time.sleep(0.02)\n"
    job = start(student=finish, env={"NODES": "1"})
    up(folder, "student", 3)
    (folder / "enough0").touch()
    until(lambda: events(folder, "student_stopped"))
    LocalBackend(folder / "out").scale({"student": 1})
    for number in (1, 2):
        (folder / f"enough{number}").touch()
    output, _ = job.communicate()
    assert job.returncode == 0, output
    assert events(folder, "student_draining") == []


def test_a_machine_without_room_has_as_many_as_fit(start: Start, folder: Path) -> None:
    make_elastic(folder)
    job = start(env={"ROOM": "3"})
    up(folder, "teacher", 1)
    (address,) = [each["address"] for each in events(folder, "coordinator_started")]
    client = StatusClient(address)
    client.scale("teacher", 4)
    client.close()
    assert len(up(folder, "teacher", 2)) == 2, "the third is the student's rank"
    job.send_signal(signal.SIGTERM)
    output, _ = job.communicate()
    assert output.count("4 workers are wanted, and this machine has room for 2") == 1


def test_a_worker_that_was_asked_to_leave_by_hand_comes_back_where_the_number_moves(
    start: Start, folder: Path
) -> None:
    make_elastic(folder, "{min: 2, max: 4}")
    start(teacher=SAVE_ON_TERM.replace("sys.exit(1)", "sys.exit(0)"))
    up(folder, "teacher", 2)
    until_ready(folder, "teacher-teacher-1")
    os.kill(events(folder, "teacher_started")[1]["pid"], signal.SIGTERM)
    until(lambda: events(folder, "teacher_stopped"))
    until(lambda: [each.id for each in up(folder, "teacher", 2)] == ["teacher-0", "teacher-1.r1"])


def test_what_a_job_cannot_have_is_refused_and_changes_nothing(start: Start, folder: Path) -> None:
    make_elastic(folder)
    backend = LocalBackend(folder / "out")
    with pytest.raises(LaunchError, match=r"no job was started in .*out"):
        backend.scale({"teacher": 2})
    job = start()
    up(folder, "teacher", 1)
    with pytest.raises(ConfigError, match="teacher=5: replicas of teacher teacher allows 1 to 4"):
        backend.scale({"student": 1, "teacher": 5})
    with pytest.raises(ConfigError, match="no role `tutor`"):
        backend.scale({"teacher": 2, "tutor": None})
    assert not (folder / "out" / "asked.json").exists()
    job.send_signal(signal.SIGTERM)
    job.communicate()
    with pytest.raises(LaunchError, match=r"job toy of .*out does not run any more: it failed \(interrupted"):
        backend.scale({"teacher": 2})


def edldist(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")}
    return subprocess.run(
        own_command(*args),
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
        timeout=150,
    )


@pytest.mark.slow
def test_the_commands_find_the_newest_job_that_runs(start: Start, folder: Path) -> None:
    make_elastic(folder)
    nothing = edldist(folder, "scale", "teacher=2")
    assert (nothing.returncode, "no job runs here (there is no job in out)" in nothing.stderr) == (2, True)
    job = start(teacher="print('I teach', flush=True)\n" + SAVE_ON_TERM, env={"OUTPUT": "out/toy"})
    output = folder / "out" / "toy"
    until(lambda: (found := read_placement(output)) is not None and found.phase == "running")
    scaled = edldist(folder, "scale", "teacher=2")
    assert (scaled.stdout, scaled.stderr) == ("teacher: 2\n", "job toy of out/toy\n")
    until(lambda: len(LocalBackend(output).state().role("teacher").processes) == 2)
    seen = edldist(folder, "status")
    assert re.search(r"teacher +0 +2 \(held\) +1:4", seen.stdout)
    assert "teacher-1 runs, and is not in the job yet (on " in seen.stdout
    told = edldist(folder, "logs", "teacher").stdout
    assert "teacher-0: I teach\n" in told and "student" not in told
    last = [json.loads(line) for line in edldist(folder, "logs", "--tail", "1", "--json").stdout.splitlines()]
    assert [line["line"] in ("I teach", "ready") for line in last if line["process"] == "teacher-0"] == [True]
    assert len({line["process"] for line in last}) == len(last)
    assert json.loads(edldist(folder, "scale", "teacher=auto", "--json").stdout) == {
        "teacher": {"asked": None}
    }
    stopped = edldist(folder, "stop")
    assert stopped.returncode == 0
    assert stopped.stdout.startswith("job toy of out/toy has ended (failed: interrupted: no checkpoint")
    assert job.wait() == 130
    told = json.loads(edldist(folder, "stop", "--output", "out/toy", "--json").stdout)
    assert (told["job"], told["output"], told["ended_already"]) == ("toy", str(output), True)
    assert told["phase"] == "failed" and told["reason"].startswith("interrupted")
    again = edldist(folder, "stop", "--output", "out/toy")
    assert (again.returncode, "has ended already (failed: interrupted" in again.stdout) == (0, True)
    gone = edldist(folder, "scale", "teacher=2")
    assert gone.returncode == 2 and "those in out have ended: out/toy" in gone.stderr
    assert "teacher-0: I teach" in edldist(folder, "logs").stdout, "its logs are there still"
