"""Watching a job may fail in any way, and changes nothing for the job."""

from __future__ import annotations

import errno
import inspect
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edldist.clock import FakeClock
from edldist.config import JobConfig
from edldist.wire.messages import Event, MemberStatus, Report, Status
from edldist_launch.record.eventfile import EventFile, read_events
from edldist_launch.record.folder import JobFolder
from edldist_launch.view import observers as module
from edldist_launch.view.console import PlainConsole
from edldist_launch.view.observers import Observers
from tests.unit.test_progress import console, written

JOB = JobConfig.model_validate({"name": "toy", "teachers": [{"model": "a:b"}], "student": {"script": "s.py"}})


class Coordinator:
    """Answers as it is told."""

    def __init__(self, *answers: Status | Exception) -> None:
        self.answers = list(answers)

    def query(self, since: int, timeout_s: float) -> Status:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def status(*members: MemberStatus, records: list[Event | Report] | None = None) -> Status:
    return Status(incarnation="i", uptime_s=1.0, members=list(members), records=records or [], seq=1)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[JobFolder]:
    with JobFolder(tmp_path / "out", JOB) as made:
        yield made


def make(folder: JobFolder, target: PlainConsole | None = None) -> Observers:
    return Observers("toy", folder, target or console(), 2, FakeClock())


def test_who_may_be_replaced_keeps_figures_and_nobody_else_does(folder: JobFolder) -> None:
    first, second = make(folder), make(folder)
    rank = MemberStatus(
        id="s",
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
        stats={"samples": 32},
    )
    taken = status(rank)
    first.take(taken, stopping=False)
    assert folder.kept() is None
    first.take_over("toy")
    first.take(taken, stopping=False)
    second.take_over("toy")
    second.result("interrupted", 1.0)
    assert json.loads((folder.path / "result.json").read_text())["samples"] == 32
    for rank.stats["samples"] in (48, 64):
        second.take(taken, stopping=False)
    second.hand_over()  # sooner than it keeps them by itself
    third = make(folder)
    third.take_over("toy")
    third.result("interrupted", 1.0)
    assert json.loads((folder.path / "result.json").read_text())["samples"] == 64
    second.finish("completed", "", 1.0)
    assert folder.kept() is None


def test_every_method_that_the_job_can_call_is_harmless() -> None:
    public = {name: member for name, member in vars(Observers).items() if not name.startswith("_")}
    assert {"event", "say", "look", "finish"} <= set(public)
    assert all(hasattr(member, "__wrapped__") for member in public.values())


@pytest.mark.parametrize("error", [OSError(errno.EIO, "gone"), ValueError("odd"), RecursionError()], ids=repr)
def test_whatever_observers_raise_is_said_once_and_kept_from_the_job(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    observers = make(folder)

    def fail(*args: object, **kwargs: object) -> None:
        raise error

    for part in (observers._view, observers._tally):
        for name, _ in inspect.getmembers(part, callable):
            if not name.startswith("__") or name in ("__enter__", "__exit__"):
                monkeypatch.setattr(part, name, fail, raising=False)
    for name in ("event", "result", "last_checkpoint"):
        monkeypatch.setattr(folder, name, fail)
    for name in ("draw_curves", "show_result"):
        monkeypatch.setattr(module, name, fail)
    monkeypatch.setattr(module, "RESULT_WAIT_S", 0.0)
    for _ in range(2):
        with observers:
            observers.event("one", step=1)
            observers.say("hello")
            observers.look(Coordinator(status(), error), 0.1, False)  # type: ignore[arg-type]
            observers.look(Coordinator(error), 0.1, False)  # type: ignore[arg-type]
            observers.crashed("t-0")
            observers.students_done()
            assert observers.checkpoint() is None
        observers.finish("completed", "", 1.0)
    assert observers.failures > 10
    said = [record.message for record in caplog.records if "watching this job failed (say)" in record.message]
    assert len(said) == 1


def test_a_logger_that_fails_too_changes_nothing(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError(errno.EIO, "gone")

    handler = Broken()
    module.logger.addHandler(handler)
    try:
        observers = make(folder)
        monkeypatch.setattr(observers._view, "say", lambda *args: 1 / 0)
        observers.say("hello")
    finally:
        module.logger.removeHandler(handler)
    assert observers.failures == 1


odd_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["soon", "[/data/run1]", "answer [/INST]", "\x1b[2J", "[bold]", ":smile:", "\ud800", ""]),
)
names = st.sampled_from(
    [
        *("teacher_joined", "teacher_left", "teacher_lost", "student_joined", "student_lost", "progress"),
        *("teacher_quarantined", "task_poisoned", "checkpoint_saved", "checkpoint_restored"),
        *("checkpoint_failed", "clock_skew", "report", "", "[/x]"),
    ]
)
keys = st.sampled_from(
    [
        *("id", "silent_s", "reason", "rank", "worker", "for_s", "error", "step", "steps", "epoch", "epochs"),
        *("t", "event", "batch", "start", "stop", "teacher", "loss", "samples", "batches", "starved_s"),
        *("buffered", "workers", "samples_per_s", "done", "[/k]"),
    ]
)
fields = st.dictionaries(keys, odd_scalars, max_size=8)
records = st.one_of(
    st.builds(Event, event=names, t=st.floats(), fields=fields),
    st.builds(
        Report,
        reporter=st.sampled_from("ab"),
        seq=st.integers(1, 9),
        rank=st.just(0),
        t=st.floats(),
        values=fields,
    ),
)
members = st.builds(
    MemberStatus,
    id=st.sampled_from(["t-0", "[/x]", "\x1b"]),
    role=st.sampled_from(["teacher", "student"]),
    group=st.just(""),
    address=st.just(""),
    host=st.just("h"),
    pid=st.just(1),
    joined_s=st.floats(),
    silent_s=st.floats(),
    links=st.just([]),
    info=fields,
    stats=fields,
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(members, max_size=3), st.lists(records, max_size=5), st.booleans())
def test_events_reports_and_figures_of_any_kind_render(
    folder: JobFolder, given_members: list[MemberStatus], given_records: list[Event | Report], terminal: bool
) -> None:
    """A forged event must not end a job, nor put anything but text on the terminal."""
    target = console(terminal)
    observers = make(folder, target)
    answer = status(*given_members, records=given_records)
    with observers:
        observers.look(Coordinator(answer, answer), 0.1, False)  # type: ignore[arg-type]
        observers.look(Coordinator(answer, answer), 0.1, True)  # type: ignore[arg-type]
    observers._result("completed", 1.0)
    observers._show_result(observers._result("completed", 1.0) or {})
    assert observers.failures == 0
    if not terminal:
        assert "\x1b" not in written(target)
    for event in read_events(folder.events_path):
        assert isinstance(event["event"], str)


def test_a_result_that_the_disk_does_not_take_goes_to_standard_error(
    folder: JobFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("edldist_launch.record.folder.replace_file", full)
    monkeypatch.setattr(module, "RESULT_WAIT_S", 0.0)
    make(folder).finish("completed", "", 1.0)
    text = capsys.readouterr().err
    assert json.loads(text[text.index("{") : text.rindex("}") + 1])["status"] == "completed"


def test_a_result_is_tried_again(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[bytes] = []

    def full(path: Path, content: bytes) -> None:
        tries.append(content)
        if len(tries) < 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        path.write_bytes(content)

    monkeypatch.setattr("edldist_launch.record.folder.replace_file", full)
    monkeypatch.setattr(module, "RESULT_WAIT_S", 0.0)
    make(folder).finish("failed", "no reason", 1.0)
    assert json.loads((folder.path / "result.json").read_text())["status"] == "failed"


def test_the_checkpoint_to_go_on_from_is_the_last_whole_one(folder: JobFolder) -> None:
    observers = make(folder)
    assert observers.checkpoint() is None
    saved = [Event(event="checkpoint_saved", t=1.0, fields={"step": 7})]
    observers.look(Coordinator(status(records=saved)), 0.1, False)  # type: ignore[arg-type]
    assert observers.checkpoint() == 7, "a script that saves elsewhere says so in an event"
    for step, whole in ((5, True), (10, False)):
        place = folder.path / "checkpoints" / f"step-{step:08d}"
        place.mkdir()
        if whole:
            (place / "COMMITTED").write_text("")
    assert observers.checkpoint() == 5


def test_events_wait_for_a_disk_that_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    events = EventFile(tmp_path / "events.jsonl", most_waiting=3)
    write, room = os.write, 40

    def limited(descriptor: int, data: bytes) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = write(descriptor, data[:room])
        room -= count
        return count

    monkeypatch.setattr(os, "write", limited)
    for number in range(6):
        events.append({"t": number, "event": "tick"})
    monkeypatch.setattr(os, "write", write)
    events.append({"t": 6, "event": "tick"})
    events.close()
    assert [event["t"] for event in read_events(events.path)] == [0, 4, 5, 6]
    assert events.lost == 3
    assert [r.message.count("No space left") for r in caplog.records] == [1, 0], "said once, and its end"
    assert "3 events were lost" in caplog.text


def test_a_result_says_why_it_did_not_complete_in_the_words_with_which_the_run_ends(
    folder: JobFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "teacher worker teacher-0 cannot work (exit code 1): OSError: no weights"
    make(folder).finish("failed", words, 1.0)
    written_down = json.loads((folder.path / "result.json").read_text())
    assert list(written_down)[:3] == ["status", "job", "reason"] and written_down["reason"] == words
    assert capsys.readouterr().err == f"error: {words}\n"
    make(folder).finish("completed", "", 1.0)
    assert "reason" not in json.loads((folder.path / "result.json").read_text())


@pytest.mark.parametrize(("wanted", "phase"), [(0, "waiting for steps"), (2, "waiting for teachers")])
def test_a_job_that_wants_no_workers_waits_for_none(folder: JobFolder, wanted: int, phase: str) -> None:
    target = console()
    with make(folder, target) as observers:
        observers.workers_wanted(wanted)
        observers.look(Coordinator(status()), 0.1, False)  # type: ignore[arg-type]
    assert f"{phase}: " in written(target)
