"""Lines of several processes in one order, whatever they print and whenever they are read."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edldist.config import load_job
from edldist.errors import ConfigError
from edldist_launch.contract.backend import ProcessState, RoleState
from edldist_launch.contract.log_order import in_order, stamp_of, timed
from edldist_launch.local.logs import follow_logs, read_logs
from edldist_launch.local.relay import Log, times_path
from edldist_launch.plan.plan import Plan, Role
from edldist_launch.view.logs import last_lines, logs_of


def stamped(seconds: float, text: str) -> str:
    """A line as edldist logs it."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    return f"{clock}.{int(seconds % 1 * 1000):03d} INFO    {text}"


def test_a_line_may_tell_its_time() -> None:
    assert stamp_of(stamped(1_700_000_000.25, "teacher t-0: up")) == 1_700_000_000.25
    assert stamp_of("2023-11-14 22:13:20 an older one") is not None
    assert stamp_of(json.dumps({"t": 5.5, "level": "info"})) == 5.5
    for other in ("", "epoch 3", "2023-99-99 99:99:99 x", "2023-11-14", '{"t": ', '{"t": null}', "{}"):
        assert stamp_of(other) is None, other


def test_lines_of_one_process_keep_their_order_whatever_its_clock_did() -> None:
    lines = [(None, "before"), (5.0, "a"), (None, "b"), (3.0, "the clock went back"), (9.0, "c")]
    assert [t for t, _ in timed(lines)] == [-math.inf, 5.0, 5.0, 5.0, 9.0]
    assert [t for t, _ in timed([(None, "goes on")], since=7.0)] == [7.0]


def test_lines_of_several_are_told_by_their_times_and_read_no_further_than_needed() -> None:
    read: list[str] = []

    def endless(whose: str, every: float) -> Iterator[tuple[float, str]]:
        for number in range(10**9):
            read.append(whose)
            yield number * every, str(number)

    told = in_order([("a", endless("a", 1.0)), ("b", endless("b", 2.5))])
    assert [next(told) for _ in range(6)] == ["a: 0", "b: 0", "a: 1", "a: 2", "b: 1", "a: 3"]
    assert len(read) <= 8


@pytest.fixture
def roles(tmp_path: Path) -> list[Role]:
    (tmp_path / "job.yaml").write_text("name: toy\nteachers: [{model: 'a:b'}]\nstudent: {script: s.py}\n")
    (tmp_path / "logs").mkdir()
    return list(Plan(load_job(tmp_path / "job.yaml"), tmp_path, tmp_path).roles)


def test_logs_of_a_job_are_read_in_one_order_by_stamps_and_by_what_relays_noted(
    tmp_path: Path, roles: list[Role]
) -> None:
    logs = tmp_path / "logs"
    teacher, student = logs / "teacher-teacher-0.log", logs / "student-0.log"
    teacher.write_text(f"{stamped(100, 'up')}\n{stamped(300, 'left')}\n")
    student.write_text("epoch 0\nepoch 1\nthe end")
    times_path(student).parent.mkdir()
    times_path(student).write_text("0 50.0\n8 200.0\nnonsense\n3 9.0\n16 400.0\n20 ")
    told = [line.rpartition(" ")[2] for line in read_logs(tmp_path, roles)]
    assert told == ["0", "up", "1", "left", "end"]
    times_path(student).unlink()
    assert [line.rpartition(" ")[2] for line in read_logs(tmp_path, roles)] == ["0", "1", "end", "up", "left"]


def test_what_comes_while_they_are_followed_is_in_order_too(tmp_path: Path, roles: list[Role]) -> None:
    teacher, student = tmp_path / "logs" / "teacher-teacher-0.log", tmp_path / "logs" / "student-0.log"
    looks: list[int] = []

    def ended() -> bool:
        looks.append(1)
        with teacher.open("a") as one, student.open("a") as two:
            if len(looks) == 1:
                two.write(f"{stamped(7, 'second')}\nhalf of ")
                one.write(f"{stamped(3, 'first')}\n")
            if len(looks) == 2:
                two.write("a line\n")
                one.write(f"{stamped(9, 'third')}\n")
        return len(looks) == 2

    told = [line.rpartition(" ")[2] for line in follow_logs(tmp_path, roles, ended)]
    assert told == ["first", "second", "line", "third"]


def test_a_relay_notes_when_it_wrote(tmp_path: Path) -> None:
    path, begun, since = tmp_path / "logs" / "log", time.time(), time.monotonic()
    path.parent.mkdir()
    log = Log(str(path))
    for _ in range(100):
        log.write(b"one line\n")
    notes = [note.split() for note in times_path(path).read_text().splitlines()]
    assert notes[0][0] == "0" and begun - 0.001 <= float(notes[0][1]) <= time.time() + 0.001, "milliseconds"
    assert len(notes) <= 2 + (time.monotonic() - since) / 0.2, "not for every line"
    assert path.read_text() == "one line\n" * 100


def test_a_log_is_written_though_its_times_cannot_be(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / ".times").write_text("in the way")
    Log(str(logs / "log")).write(b"all the same\n")
    assert (logs / "log").read_text() == "all the same\n"


def test_beside_other_logs_nothing_is_noted(tmp_path: Path) -> None:
    """A start that failed removes the folder that it made, and what it knows to be there."""
    Log(str(tmp_path / "run.log")).write(b"refused\n")
    assert [path.name for path in tmp_path.iterdir()] == ["run.log"]


def test_the_last_lines_of_each_process_are_in_the_order_of_all() -> None:
    lines = ["a: 1", "b: 1", "a: 2", "b: 2", "a: 3"]
    assert list(last_lines(lambda further: lines, 2, follow=False)) == ["b: 1", "a: 2", "b: 2", "a: 3"]


class Job:
    """A job of two roles, of which one has printed something under a name that nothing has any more."""

    def state(self) -> object:
        class State:
            roles = (
                RoleState("teacher", 1, (ProcessState("teacher-0", "1", "running"),)),
                RoleState("student", 1, (ProcessState("student-0", "2", "running"),)),
            )

        return State

    def logs(self, *roles: str, follow: bool = False) -> Iterator[str]:
        if set(roles) - {"teacher", "student"}:
            raise ConfigError("no role")
        every = ["teacher-0: a", "student-0: b", "teacher-10: c"]
        return iter([line for line in every if not roles or line.startswith(roles)])


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ((), "abc"),
        (("teacher",), "ac"),
        (("teacher", "student"), "abc"),
        (("teacher-0",), "a"),
        (("teacher-10", "student-0"), "bc"),
    ],
)
def test_several_roles_or_processes_are_told_together(names: tuple[str, ...], told: str) -> None:
    assert "".join(line[-1] for line in logs_of(Job(), names, False)) == told  # type: ignore[arg-type]


def test_names_that_are_no_role_and_no_process_are_refused() -> None:
    for names in (("nobody",), ("teacher-1",), ("teacher-0", "nobody"), ("teacher", "nobody")):
        with pytest.raises(ConfigError, match="no role"):
            logs_of(Job(), names, False)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="student is a role and teacher-0 is a process"):
        logs_of(Job(), ("teacher-0", "student"), False)  # type: ignore[arg-type]
