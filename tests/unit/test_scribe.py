"""The record of a job whose parts people start by hand."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from edldist.config import JobConfig
from edldist.coordinator.options import CoordinatorOptions
from edldist.coordinator.server import Coordinator
from edldist.errors import ConfigError
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import Event, Goodbye, MemberStatus, Register, Report, Status
from edldist_launch.record.eventfile import read_events
from edldist_launch.record.folder import RecordFolder, open_record
from edldist_launch.view import observers
from edldist_launch.view import scribe as scribes
from edldist_launch.view.scribe import Scribe

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
    stats={"batches": 4, "samples": 32},
)


def event(name: str, **fields: Any) -> Event:
    return Event(event=name, t=1.0, fields={"id": "rank0-1", **fields})


def status(seq: int, *records: Event | Report, here: bool) -> Status:
    return Status(
        incarnation="i", uptime_s=1.0, members=[RANK] if here else [], records=list(records), seq=seq
    )


def report(seq: int, **values: Any) -> Report:
    return Report(reporter="r", seq=seq, rank=0, t=float(seq), values=values)


def result(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return document


@pytest.mark.parametrize(
    ("last", "code", "wanted"),
    [
        (event("student_left"), None, "completed"),
        (event("student_lost", silent_s=3.0), None, "failed"),
        (event("student_left"), 0, "completed"),
        (event("student_lost", silent_s=3.0), 0, "completed"),
        (event("student_left"), 143, "interrupted"),
        (event("student_left"), 1, "failed"),
    ],
)
def test_a_job_by_hand_leaves_the_record_of_a_run(
    tmp_path: Path, last: Event, code: int | None, wanted: str
) -> None:
    with open_record(tmp_path / "by-hand") as folder, Scribe(folder) as scribe:
        scribe.tell(status(1, event("student_joined", rank=0), here=True))
        scribe.tell(status(3, report(1, step=1, ppl=9.0), report(2, step=2, ppl=7.5), here=True))
        scribe.tell(status(4, last, here=False))
        if code is not None:
            scribe.tell(status(5, Event("node_ended", 5.0, {"host": "h", "code": code}), here=False))
    written = result(folder.path)
    assert (written["status"], written["job"]) == (wanted, "by-hand")
    assert (written["steps"], written["samples"], written["metrics"]) == (2, 32, {"ppl": 7.5})
    names = [line["event"] for line in read_events(folder.events_path)]
    assert (
        names[:2] == ["environment", "student_joined"]
        and names.count("report") == 2
        and names[-1] in (f"job_{wanted}", "coordinator_stopped")
    )
    assert (names[-1] == "coordinator_stopped") is (wanted == "interrupted"), "others may come, and go on"
    assert (folder.path / "curves.png").stat().st_size > 0
    page = (folder.path / "report.html").read_text()
    assert f"by-hand: {wanted}" in page


def seen(path: Path) -> list[str]:
    return [line["event"] for line in read_events(path / "events.jsonl")]


def test_a_coordinator_that_is_replaced_ends_no_job_and_its_successor_goes_on_with_its_figures(
    tmp_path: Path,
) -> None:
    with open_record(tmp_path) as folder, Scribe(folder, submission="a") as scribe:
        scribe.tell(status(2, event("student_joined", rank=0), report(1, step=1), here=True))
        gone = Event("student_left", 2.0, {"id": "rank1-1", "samples": 10, "epoch": 1})
        scribe.tell(status(3, Event("teacher_joined", 2.0, {"id": "t"}), gone, here=True))
    assert (seen(tmp_path)[-1], result(tmp_path)["status"]) == ("coordinator_stopped", "interrupted")
    assert not any(name.startswith("job_") for name in seen(tmp_path))

    def ends(submission: str) -> dict[str, Any]:
        """What the next one writes down, which sees another student's end."""
        with open_record(tmp_path) as folder, Scribe(folder, submission=submission) as scribe:
            again = Event("teacher_joined", 3.0, {"id": "t"}), report(1, step=1)
            scribe.tell(status(3, event("student_joined", rank=0), *again, here=True))
            scribe.tell(status(4, event("student_left"), here=False))
        return result(tmp_path)

    whole = ends("a")
    assert (whole["status"], whole["samples"], whole["teachers"]["joined"]) == ("completed", 42, 1)
    assert seen(tmp_path).count("report") == 1 and seen(tmp_path)[-1] == "job_completed"
    assert ends("a")["samples"] == 32, "the job had ended"


@pytest.mark.parametrize("code", [None, 143])
def test_a_coordinator_that_is_replaced_while_nobody_trains_ends_no_job(
    tmp_path: Path, code: int | None
) -> None:
    """As when a group is put together anew because a node left, and its host was the coordinator's, too."""
    with open_record(tmp_path) as folder, Scribe(folder, submission="a", nodes_tell=True) as scribe:
        scribe.tell(status(1, event("student_joined", rank=0), here=True))
        scribe.tell(status(2, event("student_left"), here=False))
        if code is not None:
            scribe.tell(status(3, Event("node_ended", 5.0, {"host": "h", "code": code}), here=False))
    assert (seen(tmp_path)[-1], result(tmp_path)["status"]) == ("coordinator_stopped", "interrupted")
    with open_record(tmp_path) as folder, Scribe(folder, submission="a", nodes_tell=True) as scribe:
        scribe.tell(status(1, Event("student_left", 2.0, {"id": "other", "samples": 10}), here=False))
        scribe.tell(status(2, Event("node_ended", 5.0, {"host": "h", "code": 0}), here=False))
    assert (result(tmp_path)["status"], result(tmp_path)["samples"]) == ("completed", 42)
    assert seen(tmp_path)[-1] == "job_completed"


def test_figures_of_another_submission_are_not_gone_on_with(tmp_path: Path) -> None:
    for submission, samples in (("a", 32), ("b", 32)):
        with open_record(tmp_path) as folder, Scribe(folder, submission=submission) as scribe:
            scribe.tell(status(1, Event("student_left", 2.0, {"id": f"rank-{submission}"}), here=True))
        assert result(tmp_path)["samples"] == samples
        ids = (tmp_path / ".figures.json").read_text()
        assert f"rank-{submission}" in ids and (submission == "a" or "rank-a" not in ids)
    (tmp_path / ".figures.json").write_text("{")
    with open_record(tmp_path) as folder, Scribe(folder, submission="b") as scribe:
        scribe.tell(status(1, here=True))
    assert result(tmp_path)["samples"] == 32


def test_a_result_outlives_the_coordinators_that_follow_it(tmp_path: Path) -> None:
    job = JobConfig.model_validate(
        {"name": "j", "teachers": [{"model": "m:t"}], "student": {"script": "s.py"}}
    )
    with open_record(tmp_path, job) as folder, Scribe(folder) as scribe:
        scribe.tell(status(1, event("student_joined", rank=0), here=True))
        scribe.tell(status(2, event("student_left"), here=False))
    with open_record(tmp_path, job) as folder, Scribe(folder) as scribe:
        scribe.tell(status(0, here=False))
    assert result(tmp_path)["status"] == "completed"


def test_nothing_is_counted_any_more_once_the_students_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observers, "PROGRESS_EVENT_EVERY_S", 0.0)
    with open_record(tmp_path) as folder, Scribe(folder) as scribe:
        scribe.tell(status(1, event("student_joined", rank=0), here=True))
        scribe.tell(status(2, Event("teacher_joined", 1.0, {"id": "t"}), here=True))
        scribe.tell(status(3, event("student_left"), here=False))
        scribe.tell(status(4, Event("teacher_left", 1.0, {"id": "t"}), here=False))
        scribe.tell(status(4, here=False))
    last = "progress", "teacher_left", "job_completed"  # one line has the figures of the end
    assert tuple(seen(tmp_path)[-4:]) == ("student_left", *last)
    assert result(tmp_path)["teachers"] == {"joined": 1, "left": 0, "lost": 0}


def test_another_job_of_a_coordinator_is_counted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observers, "PROGRESS_EVENT_EVERY_S", 0.0)
    with open_record(tmp_path) as folder, Scribe(folder) as scribe:
        for seq in (1, 3):
            scribe.tell(status(seq, event("student_joined", rank=0), here=True))
            scribe.tell(status(seq + 1, event("student_left"), here=False))
    *_, joined, left, progress, ended = seen(tmp_path)
    assert (joined, left, progress, ended) == ("student_joined", "student_left", "progress", "job_completed")


def test_the_result_is_there_as_soon_as_the_students_have_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = threading.Event()
    write = RecordFolder.result
    monkeypatch.setattr(RecordFolder, "result", lambda *args: (write(*args), written.set()))
    forgotten = threading.Event()
    with open_record(tmp_path) as folder, Scribe(folder) as scribe:
        scribe.tell(status(1, event("student_joined", rank=0), here=True))
        scribe.tell(status(2, event("student_left"), here=False))
        assert written.wait(20)
        assert result(tmp_path)["status"] == "completed"
        forget = folder.forget_result
        monkeypatch.setattr(folder, "forget_result", lambda: (forget(), forgotten.set()))
        scribe.tell(status(3, event("student_joined", rank=0), here=True))
        assert forgotten.wait(20)
        assert not (tmp_path / "result.json").exists()


def test_a_coordinator_that_nobody_trained_with_leaves_no_result(tmp_path: Path) -> None:
    with open_record(tmp_path) as folder, Scribe(folder) as scribe:
        scribe.tell(status(1, Event(event="coordinator_started", t=1.0), here=False))
    assert not (tmp_path / "result.json").exists()
    assert [line["event"] for line in read_events(folder.events_path)] == [
        "environment",
        "coordinator_started",
    ]


def test_the_folder_of_a_run_is_refused_and_its_result_stands(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").touch()
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(ConfigError, match="a run of edldist run is recorded there"):
        open_record(tmp_path)
    assert (tmp_path / "result.json").exists()


def test_a_coordinator_tells_its_listener_everything_once_up_to_the_goodbyes() -> None:
    told: list[Status] = []
    network = MemoryTransport()
    options = CoordinatorOptions(bind="tcp://127.0.0.1:0", http=None)
    coordinator = Coordinator(options, network, listener=told.append)
    coordinator.open()
    poller = network.poller()
    link = poller.connect(coordinator.address, "s-1")
    link.send(
        Register(id="s-1", role="student", process="p", address="tcp://h:1", teachers=["t"], info={"rank": 0})
    )
    for seq in range(1, 4):
        link.send(Report(reporter="r", seq=seq, rank=0, t=1.0, values={"step": seq}))
    link.send(Goodbye(id="s-1", reason="done"))
    coordinator.turn(0.0)
    coordinator.turn(0.1)
    coordinator.close()
    poller.close()
    records = [record for status in told for record in status.records]
    assert [record.event for record in records if isinstance(record, Event)] == [
        "coordinator_started",
        "student_joined",
        "student_left",
    ]
    assert [record.values["step"] for record in records if isinstance(record, Report)] == [1, 2, 3]


def test_a_disk_that_hangs_holds_up_neither_the_coordinator_nor_its_end(tmp_path, monkeypatch, caplog):
    hangs, goes_on = threading.Event(), threading.Event()

    def take(self: Any, status: Status, stopping: bool) -> None:
        hangs.set()
        assert goes_on.wait(60)

    monkeypatch.setattr(scribes.Observers, "take", take)
    monkeypatch.setattr(scribes, "END_S", 0.1)
    monkeypatch.setattr(scribes, "MOST_WAITING", 3)
    with open_record(tmp_path / "out") as folder:
        with Scribe(folder) as scribe:
            scribe.tell(status(0, here=True))
            assert hangs.wait(60)
            for seq in range(1, 9):
                scribe.tell(status(seq, here=True))
            assert scribe._told.qsize() == 3
        (words,) = [message for message in caplog.messages if "is not written after 0.1 s" in message]
        assert words.endswith(f"edldist report {tmp_path / 'out'} makes its report.html")
        assert sum("does not keep up" in message for message in caplog.messages) == 1
        goes_on.set()
        scribe._thread.join(60)
        assert not scribe._thread.is_alive()
