"""``edldist status`` on an answer of the coordinator."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

import edldist_launch.view.seen
import edldist_launch.view.status
import edldist_launch.view.whereabouts
from edldist.errors import ConfigError, CoordinatorUnreachableError, LaunchError
from edldist.observe.waiting import waits
from edldist.wire.messages import GroupStatus, MemberStatus, RefusedStatus, Scalar, Status
from edldist_launch.contract.backend import JobState, ProcessState, RoleState
from edldist_launch.view.console import PlainConsole
from edldist_launch.view.status import show_status, show_status_of_folder
from tests.unit.test_progress import RESULT


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
        samples_per_s=float(rate) if isinstance(rate := stats.pop("rate", None), int) else None,
        teachers=["big"] if role == "student" else [],
    )


class Answers:
    """A stand-in for the link to a coordinator; None is no answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *statuses: Status | None) -> None:
        self._left = list(statuses)
        for module in (edldist_launch.view.status, edldist_launch.view.seen):
            monkeypatch.setattr(module, "StatusClient", self._to)
        for module in (edldist_launch.view.whereabouts, edldist_launch.view.seen):
            monkeypatch.setattr(module, "WATCH_EVERY_S", 0.0)
        self.addresses: list[str] = []

    def _to(self, address: str) -> Answers:
        self.addresses.append(address)
        return self

    def query(self, since: int, timeout_s: float) -> Status:
        status = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        if status is None:
            raise CoordinatorUnreachableError("no coordinator answered")
        return status

    def close(self) -> None:
        pass


def printed(monkeypatch: pytest.MonkeyPatch, status: Status) -> list[str]:
    Answers(monkeypatch, status)
    target = PlainConsole(file=io.StringIO(), width=80)
    assert show_status("tcp://coordinator.example:7070", False, target) == 0
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue().splitlines()


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Status:
    status = Status(
        incarnation="i",
        uptime_s=65.0,
        members=[
            member("t-0", "teacher", {}, samples=640, held=2, students=1, up_s=20.0, rate=70),
            member(
                "rank0-0123456789",
                "student",
                {"rank": 0},
                samples=500,
                batches=8,
                starved_s=1.25,
                teachers=1,
                rate=40,
            ),
            member("s-1", "student", {"rank": 1}, samples=500),
        ],
        records=[],
        seq=0,
    )
    Answers(monkeypatch, status)
    return status


def test_the_tables_fit_a_terminal_and_show_members_with_their_rates(
    answer: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    for member in answer.members:
        if member.role == "teacher":
            member.links.append("rank0-0123456789")
    answer.members[1].links.append("t-0")
    lines = printed(monkeypatch, answer)
    assert lines[0].startswith("coordinator tcp://coordinator.example:7070 · up 1m05s · 1 teacher worker · 2")
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["t-0"] == ["big", "h", "10s", "0.2s", "70", "640", "2", "1"], "the rate of its last seconds"
    assert rows["rank0-0123456789"] == ["0", "h", "10s", "0.2s", "40", "1.25", "1"]
    assert rows["s-1"] == ["1", "h", "10s", "0.2s", "-", "-", "-"], "no rate is known of it yet"


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("sealed", "link sealed: both ends of each connection prove their keys"),
        ("local", "link local: on this machine alone, without keys"),
        ("insecure", "link insecure: whoever reaches a port may take part and listen; edldist keygen"),
    ],
)
def test_it_says_whether_the_link_is_sealed(
    answer: Status,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    link: str,
    words: str,
) -> None:
    said = msgspec.structs.replace(answer, link=link)
    assert words in printed(monkeypatch, said)
    Answers(monkeypatch, said)
    show_status("tcp://h:1", True, PlainConsole())
    assert json.loads(capsys.readouterr().out)["link"] == link


def test_teachers_are_shown_with_what_is_wanted_of_them(
    answer: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {"name": "big", "workers": 3, "draining": 0, "wanted": 5, "least": 1, "most": 8, "held": None}
    more = {"demand": 480.4, "capacity": 99.6, "by_device": {}, "starved": 0.25, "leaving": [], "why": ""}
    group = GroupStatus(**base | more)
    held = {"name": "small", "wanted": 2, "held": 2, "draining": 1, "demand": None, "capacity": None}
    other = GroupStatus(**base | more | held | {"least": None, "most": None, "starved": None})
    lines = printed(monkeypatch, msgspec.structs.replace(answer, groups=[group, other]))
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["big"] == ["3", "5", "1:8", "480", "100", "25%"]
    assert rows["small"] == ["3", "(+1", "leaving)", "2", "(held)", "-", "-", "-", "-"]
    unknown = msgspec.structs.replace(group, wanted=None)
    assert "wanted" not in "".join(printed(monkeypatch, msgspec.structs.replace(answer, groups=[unknown])))


def test_a_rank_is_shown_by_its_number_and_not_by_its_group(
    answer: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = [
        msgspec.structs.replace(member(f"r-{rank}", "student", {"rank": rank}), group="digits-1234/3/0")
        for rank in (10, 9)
    ]
    lines = printed(monkeypatch, msgspec.structs.replace(answer, members=ranks))
    assert [line.split()[:2] for line in lines if line.startswith("r-")][:2] == [["r-9", "9"], ["r-10", "10"]]


def test_ids_that_workers_make_up_stay_in_one_line(answer: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    named = member("teacher-node1-e5677488", "teacher", {}, samples=123456, held=12, students=2)
    named = msgspec.structs.replace(named, host="node1", links=["s"])
    row = printed(monkeypatch, msgspec.structs.replace(answer, members=[named]))[-1].split()
    assert (row[0], row[-3:]) == ("teacher-node1-e5677488", ["123456", "12", "2"])


def test_json_holds_every_figure(answer: Status, capsys: pytest.CaptureFixture[str]) -> None:
    show_status("tcp://h:1", True, PlainConsole())
    document = json.loads(capsys.readouterr().out)
    assert [item["id"] for item in document["members"]] == ["t-0", "rank0-0123456789", "s-1"]
    assert document["members"][0]["stats"]["up_s"] == 20.0
    assert document["members"][1]["teachers"] == ["big"]
    assert document["incarnation"] == "i"


def test_trouble_is_said_below_the_tables(answer: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [
        member("sick", "teacher", {}, quarantine="4 failures in a row, the last one: no [red] pixel"),
        member("small", "teacher", {}, out_of_memory=2, batch_size=16, draining=False, quarantine=""),
        member("leaving", "teacher", {}, draining=True),
        member("rank0", "student", {"rank": 0}, skipped=32, missed=5),
    ]
    for other in members[:2]:
        other.links.append("rank0")
    assert printed(monkeypatch, msgspec.structs.replace(answer, members=members))[-5:] == [
        "leaving finishes what it holds, and leaves",
        "sick gets no work: 4 failures in a row, the last one: no [red] pixel",
        "small ran out of memory (2x): at most 16 samples a pass now",
        "rank0 took 5 samples without labels of a missing teacher",
        "rank0 left out 32 samples that no worker could label",
    ]


def test_a_worker_that_was_refused_is_told_with_the_reason(
    answer: Status, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    reason = "teacher worker teacher-1 is not like worker teacher-0: weights X instead of Y"
    refused = RefusedStatus(id="teacher-1", role="teacher", group="big", host="h", reason=reason, ago_s=125.0)
    seen = msgspec.structs.replace(answer, refused=[refused])
    said = " ".join("".join(printed(monkeypatch, seen)[-2:]).split())
    assert said == f"teacher-1 on h was refused 2m05s ago: {reason}"
    show_status("tcp://h:1", True, PlainConsole())
    assert json.loads(capsys.readouterr().out)["refused"][0]["reason"] == reason
    code = ProcessState("teacher-1", "12", "failed", reason="exit code 3")
    own = replace(code, reason=f"exit code 3: refused: {reason}")
    for process, times in ((code, 1), (own, 0)):
        placed = JobState("toy", "running", "tcp://h:1", roles=(RoleState("big", 3, (process,)),))
        target = PlainConsole(file=io.StringIO(), width=200)
        assert show_status_of_folder(tmp_path, False, target, engine=lambda placed=placed: placed) == 0
        assert isinstance(target.file, io.StringIO)
        text = target.file.getvalue()
        assert (text.count("was refused"), text.count(reason)) == (times, 1), "said once"


def test_names_and_figures_of_strangers_are_text(answer: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger = member("[/x]", "teacher", {}, samples="[/y]", held=float("inf"), up_s=float("nan"))
    stranger.links.append("s")
    lines = printed(monkeypatch, msgspec.structs.replace(answer, members=[stranger]))
    assert lines[-1].split()[0] == "[/x]"


def test_watching_shows_every_answer_until_the_job_has_a_result(
    answer: Status, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events.jsonl").write_text(
        '{"t": 1, "event": "coordinator_started", "address": "tcp://h:1"}\n'
        '{"t": 2, "event": "coordinator_started", "address": "tcp://h:2"}\n'
    )
    result = {"status": "completed", "job": "toy"}

    class Ending(Answers):
        def query(self, since: int, timeout_s: float) -> Status:
            if self._left == [answer]:
                (tmp_path / "result.json").write_text(json.dumps(result))
            return super().query(since, timeout_s)

    Ending(monkeypatch, answer, None, answer)
    assert show_status_of_folder(tmp_path, True, PlainConsole(), watch=True) == 0
    shown = capsys.readouterr()
    first, second, *end = shown.out.splitlines()
    assert json.loads(first)["incarnation"] == json.loads(second)["incarnation"] == "i"
    assert json.loads("".join(end)) == result
    assert shown.err == "no answer of the coordinator at tcp://h:2\n"


def test_a_folder_stands_for_its_coordinator(
    answer: Status, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"--output .*: no job writes there \(no events.jsonl in it\)"):
        show_status_of_folder(tmp_path, False, PlainConsole())
    (tmp_path / "events.jsonl").write_text('{"t": 1, "event": "job_started"}\n')
    with pytest.raises(ConfigError, match="its job has started no coordinator yet"):
        show_status_of_folder(tmp_path, False, PlainConsole())
    (tmp_path / "events.jsonl").write_text(
        '{"t": 1, "event": "coordinator_started", "address": "tcp://h:1"}\n'
    )
    Answers(monkeypatch, None)
    with pytest.raises(
        CoordinatorUnreachableError, match="left no result.json, and its coordinator at tcp://h:1"
    ):
        show_status_of_folder(tmp_path, False, PlainConsole())
    (tmp_path / "result.json").write_text('{"status": "completed"}')
    target = PlainConsole(file=io.StringIO(), width=80)
    assert show_status_of_folder(tmp_path, False, target) == 0
    assert isinstance(target.file, io.StringIO) and "completed" in target.file.getvalue()


@pytest.mark.parametrize("figures", [True, False])
def test_a_job_that_failed_says_why_after_its_figures(
    figures: bool, answer: Status, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events.jsonl").write_text(
        '{"t": 1, "event": "coordinator_started", "address": "tcp://h:1"}\n'
    )
    words = "teacher worker teacher-0 cannot work (exit code 1): OSError: no [weights] at /big/model.pt"
    result = {"status": "failed", "job": "toy", "reason": words}
    (tmp_path / "result.json").write_text(json.dumps({**RESULT, **result} if figures else result))
    target = PlainConsole(file=io.StringIO(), width=80)
    assert show_status_of_folder(tmp_path, False, target) == 0
    assert isinstance(target.file, io.StringIO)
    assert target.file.getvalue().splitlines()[-1] == f"error: {words}"
    assert show_status_of_folder(tmp_path, True, target) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == words


def test_a_terminal_is_redrawn_and_says_when_nobody_answers(
    answer: Status, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "events.jsonl").write_text(
        '{"t": 1, "event": "coordinator_started", "address": "tcp://h:1"}\n'
    )
    target = PlainConsole(file=io.StringIO(), width=80, force_terminal=True)

    class Ending(Answers):
        def query(self, since: int, timeout_s: float) -> Status:
            if self._left == [None]:
                (tmp_path / "result.json").write_text('{"status": "completed"}')
            return super().query(since, timeout_s)

    Ending(monkeypatch, answer, None)
    show_status_of_folder(tmp_path, False, target, watch=True)
    assert isinstance(target.file, io.StringIO)
    assert "student ranks" in target.file.getvalue()
    assert "no answer of the coordinator at tcp://h:1 for 2s" in target.file.getvalue()


@pytest.mark.parametrize(
    ("who", "says"),
    [
        ("lone", ["waits for teacher 'big': no worker of it is here; there are workers of 'bert'"]),
        ("fed", []),
        (
            "hungry",
            ["waits for labels for 12s: 2 of 2 workers serve it, and 1 other rank"],
        ),
        ("sick", ["waits for labels for 12s: all its workers are left out (t-0: no pixel)"]),
        ("unlinked", ["waits for labels for 12s: none of 2 workers serves it yet"]),
        ("cut", ["waits for labels for 12s: its workers (t-0) have no connection to it at tcp://h:9"]),
        ("idle", ["waits for students that want 'bert': those that are here want 'big'"]),
        ("first", ["waits for students: none is here"]),
        ("spare", ["waits for students: others serve those that are here"]),
    ],
)
def test_it_says_who_waits_for_whom_and_why(who: str, says: list[str]) -> None:
    def worker(number: int, *links: str, group: str = "big", **stats: Scalar) -> MemberStatus:
        made = member(f"t-{number}", "teacher", {}, **stats)
        return msgspec.structs.replace(made, links=list(links), group=group)

    def rank(*links: str, **stats: Scalar) -> MemberStatus:
        made = member("me", "student", {"rank": 0}, **{"teachers": len(links), **stats})
        return msgspec.structs.replace(made, links=list(links), address="tcp://h:9")

    waiting: dict[str, Scalar] = {"waiting_s": 12.3}
    bert, both = worker(0, group="bert"), [worker(0, "me", "you"), worker(1, "me")]
    me, members = {
        "lone": (rank(), [bert]),
        "fed": (rank("t-0", waiting_s=0.4), [worker(0, "me")]),
        "hungry": (rank("t-0", "t-1", **waiting), both),
        "sick": (rank("t-0", **waiting), [worker(0, "me", quarantine="no pixel")]),
        "unlinked": (rank(**waiting), [worker(0, "you"), worker(1, "you")]),
        "cut": (rank("t-0", teachers=0, **waiting), [worker(0, "me")]),
        "idle": (bert, [rank()]),
        "first": (bert, []),
        "spare": (worker(0), [rank("t-1")]),
    }[who]
    assert waits(me, [me, *members]) == says


class Engine:
    """Tells one state after the other; words are why it does not, None what there is now for ever."""

    def __init__(self, *states: JobState | str) -> None:
        self._left = list(states)

    def __call__(self) -> JobState:
        state = self._left.pop(0) if len(self._left) > 1 else self._left[0]
        if isinstance(state, str):
            raise LaunchError(state)
        return state


RUNS = JobState("toy", "running", "tcp://h:1")
OUTAGE = "squeue: slurm_load_jobs error: Socket timed out on send/recv operation"


def test_watching_outlasts_an_engine_that_is_silent_for_a_while_and_ends_with_the_job(
    answer: Status, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = Answers(monkeypatch, answer)
    moved = JobState("toy", "running", "tcp://h:2")  # as a forwarded port does in an outage
    over = JobState("toy", "failed", reason="teacher-0 cannot work")
    engine = Engine(RUNS, RUNS, OUTAGE, OUTAGE, moved, OUTAGE, over)
    assert show_status_of_folder(tmp_path, True, PlainConsole(), watch=True, engine=engine) == 0
    shown = capsys.readouterr()
    assert shown.err == f"the engine does not tell how the job is: {OUTAGE}\n" * 2, "once for each outage"
    *_, last = shown.out.split("\n{\n")
    assert json.loads("{" + last)["placed"]["reason"] == "teacher-0 cannot work"
    assert answers.addresses == ["tcp://h:1", "tcp://h:2"]


def test_watching_gives_up_when_neither_coordinator_nor_engine_tells_anything_for_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Answers(monkeypatch, None)
    monkeypatch.setattr(edldist_launch.view.seen, "OUTAGE_S", 0.0)
    with pytest.raises(LaunchError, match=f"neither the coordinator at tcp://h:1 nor .*: {OUTAGE}"):
        show_status_of_folder(tmp_path, True, PlainConsole(), watch=True, engine=Engine(RUNS, OUTAGE))


def test_watching_waits_through_an_outage_for_a_coordinator_that_comes_later(
    answer: Status, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Answers(monkeypatch, answer)
    pending = JobState("toy", "pending")
    engine = Engine(pending, OUTAGE, RUNS, JobState("toy", "succeeded"))
    assert show_status_of_folder(tmp_path, True, PlainConsole(), watch=True, engine=engine) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["incarnation"] == "i"


def test_a_silent_engine_has_the_word_where_nobody_knows_the_coordinator(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=f"^{OUTAGE}$"):
        show_status_of_folder(tmp_path, False, PlainConsole(), engine=Engine(OUTAGE))


def test_a_coordinator_that_is_replaced_just_now_is_no_killed_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Answers(monkeypatch, None)
    waits = JobState("toy", "running", "tcp://h:1", "its coordinator waits for a host: Resources")
    assert show_status_of_folder(tmp_path, False, PlainConsole(), engine=Engine(waits)) == 0
    told = capsys.readouterr()
    assert told.out == "job toy · running: its coordinator waits for a host: Resources\n"
    assert told.err == "no answer of the coordinator at tcp://h:1\n"
