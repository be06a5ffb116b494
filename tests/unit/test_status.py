"""``edldist status`` on an answer of the coordinator."""

from __future__ import annotations

import io
import json

import msgspec
import pytest

import edldist_launch.status
from edldist.wire.messages import MemberStatus, Scalar, Status
from edldist_launch.console import PlainConsole
from edldist_launch.status import show_status


def member(member_id: str, role: str, info: dict[str, Scalar], **stats: Scalar) -> MemberStatus:
    return MemberStatus(
        id=member_id,
        role=role,
        group="big" if role == "teacher" else "",
        address="",
        process=f"p-{member_id}",
        host="h",
        pid=1,
        joined_s=10.0,
        silent_s=0.25,
        links=[],
        info=info,
        stats=stats,
    )


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Status:
    status = Status(
        incarnation="i",
        uptime_s=65.0,
        members=[
            member("t-0", "teacher", {}, samples=640, held=2, students=1, up_s=20.0),
            member(
                "rank0-0123456789", "student", {"rank": 0}, samples=500, batches=8, starved_s=1.25, teachers=1
            ),
            member("s-1", "student", {"rank": 1, "rejoin": True}, samples=500),
        ],
        records=[],
        seq=0,
    )
    monkeypatch.setattr(edldist_launch.status, "query_status", lambda *args, **kwargs: status)
    return status


def test_the_tables_fit_a_terminal_and_show_members_with_their_rates(answer: Status) -> None:
    target = PlainConsole(file=io.StringIO(), width=80)
    assert show_status("tcp://coordinator.example:7070", False, target) == 0
    assert isinstance(target.file, io.StringIO)
    text = target.file.getvalue()
    assert text.startswith(
        "coordinator tcp://coordinator.example:7070 · up 1m05s · 1 teacher worker · 2 student ranks\n"
    )
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert rows["t-0"] == ["big", "h", "10s", "0.2s", "32", "640", "2", "1"]
    assert rows["rank0-0123456789"] == ["0", "h", "10s", "0.2s", "50", "1.25", "1"]
    assert rows["s-1"][4] == "-", "its age is unknown, and so is its rate"


def test_ids_that_workers_make_up_stay_in_one_line(answer: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    named = member("teacher-node1-e5677488", "teacher", {}, samples=123456, held=12, students=2)
    status = msgspec.structs.replace(answer, members=[msgspec.structs.replace(named, host="node1")])
    monkeypatch.setattr(edldist_launch.status, "query_status", lambda *args, **kwargs: status)
    target = PlainConsole(file=io.StringIO(), width=80)
    show_status("tcp://h:1", False, target)
    assert isinstance(target.file, io.StringIO)
    row = target.file.getvalue().splitlines()[-1].split()
    assert (row[0], row[-3:]) == ("teacher-node1-e5677488", ["123456", "12", "2"])


def test_json_holds_every_figure(answer: Status, capsys: pytest.CaptureFixture[str]) -> None:
    show_status("tcp://h:1", True, PlainConsole())
    document = json.loads(capsys.readouterr().out)
    assert [item["id"] for item in document["members"]] == ["t-0", "rank0-0123456789", "s-1"]
    assert document["members"][0]["stats"]["up_s"] == 20.0
    assert document["incarnation"] == "i"


def test_trouble_is_said_below_the_tables(answer: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [
        member("sick", "teacher", {}, quarantine="4 failures in a row, the last one: no [red] pixel"),
        member("small", "teacher", {}, out_of_memory=2, batch_size=16, draining=False, quarantine=""),
        member("leaving", "teacher", {}, draining=True),
        member("rank0", "student", {"rank": 0}, skipped=32),
    ]
    troubled = msgspec.structs.replace(answer, members=members)
    monkeypatch.setattr(edldist_launch.status, "query_status", lambda *args, **kwargs: troubled)
    target = PlainConsole(file=io.StringIO(), width=80)
    show_status("tcp://h:1", False, target)
    assert isinstance(target.file, io.StringIO)
    assert target.file.getvalue().splitlines()[-4:] == [
        "leaving finishes what it holds, and leaves",
        "sick gets no work: 4 failures in a row, the last one: no [red] pixel",
        "small ran out of memory (2x): at most 16 samples a pass now",
        "rank0 left out 32 samples that no worker could label",
    ]


def test_names_and_figures_of_strangers_are_text(answer: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = member("[/x]", "teacher", {}, samples="[/y]", held=float("inf"), up_s=float("nan"))
    monkeypatch.setattr(
        edldist_launch.status,
        "query_status",
        lambda *args, **kwargs: msgspec.structs.replace(answer, members=[stranger]),
    )
    target = PlainConsole(file=io.StringIO(), width=80)
    show_status("tcp://h:1", False, target)
    assert isinstance(target.file, io.StringIO)
    assert target.file.getvalue().splitlines()[-1].split()[0] == "[/x]"
