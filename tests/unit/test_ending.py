"""How the students of a job have ended, by the coordinator's word."""

from __future__ import annotations

from pathlib import Path

import pytest

from edldist.wire.messages import Event, MemberStatus, Status
from edldist_launch.view import end_watch
from edldist_launch.view.ending import Ending

RANK = MemberStatus(
    id="rank0-1",
    role="student",
    group="",
    address="",
    process="p",
    host="h",
    pid=1,
    joined_s=1.0,
    silent_s=0.0,
    links=[],
    info={"rank": 0},
    stats={},
)


def status(*events: Event, here: int = 0, life: str = "one", seq: int = 0) -> Status:
    return Status(incarnation=life, uptime_s=1.0, members=[RANK] * here, records=list(events), seq=seq)


def rank(what: str) -> Event:
    return Event(event=f"student_{what}", t=1.0, fields={"id": "rank0-1"})


def node(code: int) -> Event:
    return Event(event="node_ended", t=1.0, fields={"host": "h", "code": code})


@pytest.mark.parametrize(
    ("codes", "word", "over"),
    [
        ((), "interrupted", False),
        ((0,), "completed", True),
        ((143, 0), "completed", True),
        ((0, 143), "completed", True),
        ((143,), "interrupted", False),
        ((130, 143), "interrupted", False),
        ((1,), "failed", True),
        ((143, 1), "failed", True),
    ],
)
def test_nodes_say_how_they_end(codes: tuple[int, ...], word: str, over: bool) -> None:
    ending = Ending(nodes_tell=True)
    assert not ending.begun
    assert not ending.see(status(rank("joined"), here=1)) and ending.begun
    assert ending.see(status(rank("left")))
    for code in codes:
        assert ending.see(status(node(code)))
    assert (ending.word, ending.over) == (word, over)


def test_while_somebody_trains_no_nodes_end_is_the_end() -> None:
    ending = Ending(nodes_tell=True)
    assert not ending.see(status(rank("joined"), rank("joined"), here=2))
    assert not ending.see(status(rank("left"), node(0), here=1)) and not ending.over
    assert ending.see(status(rank("left"))) and ending.over
    assert not ending.see(status(rank("joined"), here=1)) and not ending.over
    assert ending.see(status(rank("lost"))) and (ending.word, ending.over) == ("interrupted", False)


@pytest.mark.parametrize(("last", "word"), [("left", "completed"), ("lost", "failed")])
def test_where_nobody_runs_nodes_ranks_that_said_goodbye_are_done(last: str, word: str) -> None:
    ending = Ending(nodes_tell=False)
    ending.see(status(rank("joined"), here=1))
    assert ending.see(status(rank(last))) and (ending.word, ending.over) == (word, False)
    assert ending.see(status(node(143))) and ending.word == "interrupted"


def test_the_end_is_waited_for_through_a_replacement_of_the_coordinator(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []
    answers = [
        status(rank("joined"), here=1, seq=3),
        status(rank("joined"), here=1, seq=3),
        end_watch.CoordinatorUnreachableError("gone"),
        end_watch.CoordinatorUnreachableError("gone"),
        status(life="two", seq=1),
        status(rank("joined"), here=1, life="two", seq=1),
        status(rank("left"), node(143), life="two", seq=3),
        status(rank("joined"), here=1, life="two", seq=4),
        status(rank("left"), node(0), life="two", seq=6),
        status(life="two", seq=6),
    ]

    class Client:
        def __init__(self, address: str) -> None:
            assert address == "tcp://c:1"

        def query(self, since: int, timeout_s: float) -> Status:
            asked.append(since)
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        def close(self) -> None:
            pass

    monkeypatch.setattr(end_watch, "StatusClient", Client)
    slept: list[float] = []
    assert end_watch.await_end("tcp://c:1", 3.0, sleep=slept.append) == "completed"
    assert [record.getMessage() for record in caplog.records] == [
        "no coordinator answers at tcp://c:1: asking on, for however long",
        "the coordinator at tcp://c:1 answers",
    ]
    assert answers == [] and set(slept) == {3.0}
    assert asked == [0, 0, 3, 3, 3, 0, 1, 3, 4, 6]


def test_students_for_whom_nothing_could_be_prepared_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Nobody:
        def __init__(self, address: str) -> None:
            pass

        def query(self, since: int, timeout_s: float) -> Status:
            raise end_watch.CoordinatorUnreachableError("it waits, too")

        def close(self) -> None:
            pass

    monkeypatch.setattr(end_watch, "StatusClient", Nobody)
    given_up, slept = tmp_path / ".prepared.failed", []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            given_up.touch()

    said = end_watch.await_end("tcp://c:1", 3.0, given_up, sleep)
    assert (said, slept) == ("nothing could be prepared for them", [3.0, 3.0])


@pytest.mark.parametrize(
    ("codes", "reason"),
    [((1, 143, 1), "a student node ended with exit code 1;"), ((0,), ""), ((143,), ""), ((), "")],
)
def test_a_failure_has_a_reason_and_nothing_else_has(codes: tuple[int, ...], reason: str) -> None:
    ending = Ending(nodes_tell=True)
    ending.see(status(rank("joined"), here=1))
    ending.see(status(rank("left"), *map(node, codes)))
    assert ending.reason.startswith(reason) and bool(ending.reason) == bool(reason)
