"""The record of a job whose parts people start by hand."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from edldist.coordinator.server import Coordinator, CoordinatorOptions
from edldist.errors import ConfigError
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import Event, Goodbye, MemberStatus, Register, Report, Status
from edldist_launch.record.eventfile import read_events
from edldist_launch.record.folder import RecordFolder, open_record
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
    ("last", "here", "wanted"),
    [
        (event("student_left"), False, "completed"),
        (event("student_lost", silent_s=3.0), False, "failed"),
        (None, True, "interrupted"),
    ],
)
def test_a_job_by_hand_leaves_the_record_of_a_run(
    tmp_path: Path, last: Event | None, here: bool, wanted: str
) -> None:
    with open_record(tmp_path / "by-hand") as folder, Scribe(folder) as scribe:
        scribe.tell(status(1, event("student_joined", rank=0), here=True))
        scribe.tell(status(3, report(1, step=1, ppl=9.0), report(2, step=2, ppl=7.5), here=True))
        if last is not None:
            scribe.tell(status(4, last, here=here))
    written = result(folder.path)
    assert (written["status"], written["job"]) == (wanted, "by-hand")
    assert (written["steps"], written["samples"], written["metrics"]) == (2, 32, {"ppl": 7.5})
    names = [line["event"] for line in read_events(folder.events_path)]
    assert names[0] == "student_joined" and names.count("report") == 2 and names[-1] == f"job_{wanted}"
    assert (folder.path / "curves.png").stat().st_size > 0


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
    assert [line["event"] for line in read_events(folder.events_path)] == ["coordinator_started"]


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
        assert any("has not answered for 0.1 s" in message for message in caplog.messages)
        assert sum("does not keep up" in message for message in caplog.messages) == 1
        goes_on.set()
        scribe._thread.join(60)
        assert not scribe._thread.is_alive()
