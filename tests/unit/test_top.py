"""``edldist top``: what it makes of a coordinator's answers, of keys, and of the room that it has."""

from __future__ import annotations

import io
import os
import pty
import termios
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

import edldist_launch.view.top.loop as loop
import edldist_launch.view.whereabouts as whereabouts
from edldist.errors import CoordinatorUnreachableError, RefusedError
from edldist.keys.open_link import INSECURE, LOCAL, SEALED
from edldist.wire.messages import (
    Course,
    Event,
    GroupStatus,
    Happening,
    History,
    MemberStatus,
    Report,
    Scalar,
    Status,
)
from edldist_launch.contract.backend import JobState
from edldist_launch.view.console import PlainConsole
from edldist_launch.view.top.columns import STUDENTS, WORKERS, bar, fitting
from edldist_launch.view.top.drawing import Frame, draw
from edldist_launch.view.top.keys import Keys
from edldist_launch.view.top.looks import PANELS, Looks, press
from edldist_launch.view.top.opening import await_coordinator
from edldist_launch.view.top.scene import Scene, SceneMaker

ADDRESS = "tcp://h:1"
BIG = GroupStatus("big", 3, 0, 5, 1, 8, None, 480.0, 99.0, {}, 0.25, [], "")


def worker(number: int, rate: float | None = 100.0, **stats: Scalar) -> MemberStatus:
    return MemberStatus(
        id=f"t-{number}",
        role="teacher",
        group="big",
        address="",
        process=f"p{number}",
        host="a\x1b[1mb",
        pid=number,
        joined_s=65.0,
        silent_s=0.1,
        links=["r0"],
        info={"device": "cuda:0"},
        stats={"samples": 640, "held": 2, "students": 1, "batch_size": 64} | stats,
        samples_per_s=rate,
    )


def rank(number: int, **stats: Scalar) -> MemberStatus:
    return MemberStatus(
        id=f"r{number}",
        role="student",
        group="",
        address="",
        process=f"q{number}",
        host="h",
        pid=9,
        joined_s=65.0,
        silent_s=0.1,
        links=[],
        info={"rank": number},
        stats={"buffered": 3, "batches": 10, "starved_s": 4.0, "teachers": 2} | stats,
        teachers=["big"],
        samples_per_s=200.0,
        job="digits",
        high_watermark=8,
    )


def status(*members: MemberStatus, records: tuple[Event | Report, ...] = (), life: str = "a") -> Status:
    return Status(
        incarnation=life,
        uptime_s=65.0,
        members=list(members),
        records=list(records),
        seq=len(records),
        groups=[BIG],
    )


def scene_of(*answers: Status) -> Scene:
    maker = SceneMaker(ADDRESS)
    for number, answer in enumerate(answers):
        scene = maker.see(answer, float(number), 1e9 + number)
    return scene


def text(frame: Frame) -> list[str]:
    return [line.plain for line in frame.lines]


def at(looks: Looks, *keys: str, furthest: int = 100) -> Looks:
    for key in keys:
        looks = press(looks, key, dict.fromkeys(PANELS, furthest), page=10)
    return looks


# --- what there is to show ----------------------------------------------------------------------


def test_workers_have_their_share_of_their_group_and_ranks_their_rate_of_steps() -> None:
    first = status(worker(0, 100.0, busy_s=1.0), worker(1, 300.0), rank(0))
    second = status(worker(0, 100.0, busy_s=1.5), worker(1, 300.0), rank(0, batches=30, starved_s=4.5))
    scene = scene_of(first, second)
    assert [(row.id, row.share, row.state.word) for row in scene.workers] == [
        ("t-0", 0.25, "labels"),
        ("t-1", 0.75, "labels"),
    ]
    assert scene.workers[0].busy == 0.5 and scene.workers[1].busy is None, "it does not say"
    (row,) = scene.students
    assert (row.steps_per_s, row.starved, row.buffered, row.high) == (20.0, 0.5, 3, 8)
    assert scene.job == "digits"


@pytest.mark.parametrize("value", [None, "many", float("nan"), -1, 1e300, True])
def test_figures_that_are_none_are_shown_as_nothing(value: Scalar) -> None:
    told = {"samples": value, "held": value, "room": value, "decode_queue_samples": value}
    scene = scene_of(status(worker(0, None, **told), rank(0, buffered=value)))
    assert (scene.workers[0].samples, scene.workers[0].held, scene.students[0].buffered) == (0, 0, 0)
    assert scene.workers[0].queue == "-"
    assert text(draw(scene, Looks(), 80, 24))


@pytest.mark.parametrize("link", [SEALED, LOCAL, INSECURE])
def test_it_says_whether_others_may_take_part(link: str) -> None:
    """As ``edldist status`` does: beside the job's name, which a narrow terminal shows, too."""
    job = "a-job-with-a-name-of-some-length"
    before = scene_of(status(rank(0)))
    assert INSECURE not in text(draw(before, Looks(), 80, 24))[0]
    frame = draw(replace(before, job=job, link=link), Looks(), 46, 24)
    assert text(frame)[0].startswith(f"{job}  {link}")
    assert scene_of(msgspec.structs.replace(status(rank(0)), link=link)).link == link


def test_a_narrow_terminal_says_which_rows_are_left_out() -> None:
    looks = replace(Looks(), filter="cuda")
    assert "only rows with 'cuda': Esc ends it" in text(draw(scene_of(status(rank(0))), looks, 80, 24))[-1]


def test_the_fullest_queue_of_a_worker_is_named_with_how_much_of_its_room_it_takes() -> None:
    waiting = {"room": 128, "receive_queue_samples": 64, "decode_queue_samples": 96, "send_queue_samples": 32}
    scene = scene_of(status(worker(0, 1.0, **waiting), worker(1, 1.0, room=128), worker(2, 1.0)))
    assert [row.queue for row in scene.workers] == ["decode 75%", "-", "-"]
    assert any("decode 75%" in line for line in text(draw(scene, Looks(), 200, 24)))


def test_events_are_told_in_words_and_a_restart_is_one() -> None:
    lost = Event("teacher_lost", 5.0, {"id": "t-1", "silent_s": 3.2})
    saved = Event("checkpoint_saved", 6.0, {"step": 200, "bytes": 1, "seconds": 0.1})
    only_for_the_record = Event("task_requeued", 6.0, {"student": "r0"})
    report = Report(reporter="r", seq=1, rank=0, t=6.0, values={"step": 7, "steps": 70, "loss": 0.5})
    scene = scene_of(status(rank(0), records=(lost, saved, only_for_the_record, report)))
    assert [(event.words, event.tone) for event in scene.events] == [
        ("teacher t-1 lost (silent for 3.2 s)", "bad"),
        ("checkpoint of step 200 saved in 0.1 s", "good"),
    ]
    assert (scene.figures.step, scene.figures.steps, scene.figures.metrics) == (7, 70, {"loss": 0.5})
    maker = SceneMaker(ADDRESS)
    maker.see(status(rank(0), records=(lost,)), 0.0, 1e9)
    assert maker.since == 1
    gone = maker.lost("nobody answers", 3.0)
    assert (gone.silent_s, [row.id for row in gone.students]) == (0.0, ["r0"]), "what was seen last stays"
    assert maker.lost("nobody answers", 5.0).silent_s == 2.0
    back = maker.see(status(rank(0), life="b"), 6.0, 1e9)
    assert back.silent_s is None and maker.since == 0, "its records are numbered anew"
    assert "another coordinator answers" in back.events[-1].words


def test_an_answer_after_a_silence_says_how_long_that_was() -> None:
    maker = SceneMaker(ADDRESS)
    maker.see(status(rank(0)), 0.0, 1e9)
    maker.lost("nobody answers", 3.0)
    assert maker.see(status(rank(0)), 15.0, 1e9).events[-1].words.endswith("answers again after 12 s")


# --- keys ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "keys"),
    [
        ([b"q"], ["q"]),
        ([b"\x1b[A", b"\x1bOB"], ["up", "down"]),
        ([b"\x1b", b"[5~"], ["page up"]),
        ([b"\x1b[", b"B"], ["down"]),
        ([b"\x1b[2~x\x1b[1;5Cy"], ["x", "y"]),
        ([b"\t\r\x7f\x03"], ["tab", "enter", "backspace", "interrupt"]),
        ([b"\x1bq"], ["escape", "q"]),
        ([b"\xff\x00\x01"], []),
        (["é/".encode()], ["é", "/"]),
        ([b"\x1b[" + b"9" * 50 + b"~s"], ["s"]),
    ],
)
def test_what_a_terminal_sends_is_cut_into_keys(pieces: list[bytes], keys: list[str]) -> None:
    reader = Keys()
    assert [key for piece in pieces for key in reader.press(piece)] == keys


def test_an_escape_alone_is_a_key_once_nothing_follows() -> None:
    reader = Keys()
    assert list(reader.press(b"\x1b")) == [] and list(reader.rest()) == ["escape"]
    assert list(reader.rest()) == []


def test_keys_change_what_is_shown() -> None:
    looks = Looks()
    assert at(looks, "s", "s").sort == {"workers": 2}
    assert at(looks, "r").turned == {"workers"} and at(looks, "r", "s").turned == frozenset()
    assert at(looks, "tab").panel == "students" and at(looks, "back tab").panel == "events"
    assert at(looks, "tab", "tab", "tab").panel == "workers"
    assert at(looks, "p").paused and not at(looks, "p", " ").paused
    assert at(looks, "h").help and not at(looks, "h", "s").help and at(looks, "h", "s").sort == {}
    assert at(looks, "q").done and at(looks, "h", "q").done and at(looks, "interrupt").done
    assert at(looks, "down", "j", "page down", "up").offset == {"workers": 11}
    assert at(looks, "end").offset == {"workers": 100} and at(looks, "end", "home").offset == {"workers": 0}
    assert at(looks, "page down", furthest=3).offset == {"workers": 3}
    assert at(looks, "up").offset == {"workers": 0}
    assert at(looks, "x", "page", "\x00") == looks


def test_a_filter_is_typed() -> None:
    typed = at(Looks(), "/", "q", "x", "backspace", "s", "up")
    assert (typed.filter, typed.typing, typed.done) == ("qs", True, False)
    assert (at(typed, "enter").filter, at(typed, "enter").typing) == ("qs", False)
    assert at(typed, "enter", "escape").filter == "" and at(typed, "escape") == Looks(offset={})
    assert at(typed, "interrupt").done


# --- lines --------------------------------------------------------------------------------------


MANY = status(
    *(worker(number, rate=float(number)) for number in range(100)),
    *(rank(number) for number in range(20)),
    records=tuple(Event("teacher_joined", float(number), {"id": f"t-{number}"}) for number in range(100)),
)


@pytest.mark.parametrize("width", [1, 20, 40, 80, 120, 200, 500])
@pytest.mark.parametrize("height", [1, 5, 12, 24, 60])
def test_a_frame_fits_any_terminal(width: int, height: int) -> None:
    for looks in (Looks(), Looks(help=True), Looks(typing=True, filter="t"), Looks(offset={"workers": 999})):
        frame = draw(scene_of(MANY), looks, width, height)
        assert len(frame.lines) <= max(height, 1)
        assert all(line.cell_len <= width for line in frame.lines)


def test_80_columns_have_what_matters_most() -> None:
    lines = text(draw(scene_of(MANY, MANY), Looks(), 80, 24))
    assert len(lines) == 24
    (workers,) = [line for line in lines if "worker▲" in line]
    for heading in ("device", "state", "samples/s", "share"):
        assert heading in workers
    (students,) = [line for line in lines if line.strip().startswith("rank")]
    for heading in ("state", "buffer", "steps/s", "starved"):
        assert heading in students
    assert any("███····· 3/8" in line for line in lines)
    assert any("teacher t-99 joined" in line for line in lines), "the newest event"
    assert "big  3 of 5 workers (1 to 8)  starved 25%  asked 480/s" in lines[2]
    assert "quit" in lines[-1]
    assert not any("\x1b" in line for line in lines), "a host's name moves no cursor"


def test_more_columns_stand_where_there_is_room() -> None:
    names = [
        [column.heading for column, _ in fitting(WORKERS, scene_of(MANY).workers, width)]
        for width in (30, 78, 200)
    ]
    assert set(names[0]) < set(names[1]) < set(names[2])
    assert {"pid", "host", "note"} <= set(names[2])
    assert len(fitting(STUDENTS, [], 0)) == 1


def test_rows_are_sorted_filtered_and_moved() -> None:
    def first(*keys: str) -> str:
        lines = text(draw(scene_of(MANY), at(Looks(), *keys), 100, 24))
        return lines[next(n for n, line in enumerate(lines) if line.startswith("▸")) + 1].split()[0]

    assert first() == "t-0"
    by_rate = ["s"] * [column.heading for column in WORKERS].index("samples/s")
    assert first(*by_rate) == "t-99", "the fastest comes first"
    assert first(*by_rate, "r") == "t-0"
    assert first("down", "down") == "t-10", "by name: t-0, t-1, t-10"
    assert first("/", *"T-7", "enter") == "t-7"
    windows = [line for line in text(draw(scene_of(MANY), Looks(), 80, 24)) if " of 100 " in line]
    assert len(windows) == 2, "which rows are shown, of the workers and of the events"


def test_states_and_troubles_are_said() -> None:
    ill = worker(1, 0.0, quarantine="it raises")
    late = worker(2)
    late = MemberStatus(
        **{field: getattr(late, field) for field in late.__struct_fields__} | {"silent_s": 9.0}
    )
    scene = scene_of(status(worker(0, 0.0), ill, late, worker(3, None), worker(4, draining=True), rank(0)))
    assert [row.state.word for row in scene.workers] == ["idle", "left out", "silent", "starts", "leaving"]
    lines = text(draw(scene, Looks(), 80, 40))
    assert "t-1 gets no work: it raises" in lines
    maker = SceneMaker(ADDRESS)
    maker.see(status(rank(0)), 0.0, 0.0)
    maker.lost("nobody listens there", 1.0)
    gone = text(draw(maker.lost("nobody listens there", 4.0), Looks(paused=True), 100, 24))
    assert "has not answered for 3s" in gone[2] and "nobody listens there" in gone[2]
    assert "paused" in gone[0]


def test_a_bar_is_as_long_as_its_part() -> None:
    assert [bar(part, 4).plain for part in (-1, 0, 0.5, 0.99, 2)] == ["····", "····", "██··", "████", "████"]


# --- the terminal -------------------------------------------------------------------------------


COURSE = Course(1.0, [1.0, 2.0], [90.0, None], *([[None, None]] * 4), {})
HISTORY = History(
    **{"incarnation": "a", "wall_s": 3.0, "began_s": 0.0, "since": 0.0, "recent": COURSE, "whole": None},
    **{"figures": [], "progress": []},
    happenings=[Happening(1.0, "teacher_lost", "bad", "teacher t-9\nlost", "t-9")],
)


def test_what_happened_before_comes_from_the_coordinators_history() -> None:
    maker = SceneMaker(ADDRESS)
    maker.see(status(rank(0), records=(Event("remark", 1.0, {"text": "told twice"}),)), 0.0, 1e9)
    scene = maker.recall(HISTORY)
    assert [(event.words, event.tone) for event in scene.events] == [("teacher t-9 lost", "bad")]
    assert scene.rates == (90.0, 0.0)
    later = maker.see(status(rank(0)), 2.0, 1e9)
    assert len(later.events) == 1 and len(later.rates) == 3


class Answers:
    """A stand-in for the link to a coordinator: the last answer comes again and again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Status | Exception) -> None:
        self.left = list(answers)
        self.asked: list[str] = []
        monkeypatch.setattr(loop, "StatusClient", self.to)
        monkeypatch.setattr(loop, "ASK_EVERY_S", 0.01)
        monkeypatch.setattr(loop, "LOOK_S", 0.01)

    def to(self, address: str) -> Answers:
        self.asked.append(address)
        return self

    def query(self, since: int, timeout_s: float) -> Status:
        answer = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def history(self, timeout_s: float) -> History:
        return HISTORY

    def close(self) -> None:
        pass


UNREACHABLE = CoordinatorUnreachableError("no coordinator answered")


class Terminal:
    """A terminal that does not say how large it is, whose keys a test presses and whose screen it reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.master, self.slave = pty.openpty()
        self.stream = os.fdopen(os.dup(self.slave), "w")
        self.keyboard = os.fdopen(os.dup(self.slave))
        monkeypatch.setattr("sys.stdin", self.keyboard)
        monkeypatch.setenv("TERM", "xterm-256color")
        self.console = PlainConsole(file=self.stream, force_terminal=True)
        self.before = termios.tcgetattr(self.slave)
        self.seen = b""

    def press_when(self, *steps: tuple[bytes, bytes]) -> threading.Thread:
        """Press keys, each once something was shown since the ones before."""

        def act() -> None:
            for awaited, keys in steps:
                shown = b""
                while awaited not in shown:
                    piece = os.read(self.master, 65536)
                    shown, self.seen = shown + piece, self.seen + piece
                os.write(self.master, keys)
            while piece := os.read(self.master, 65536):
                self.seen += piece
                if b"\x1b[?1049l" in self.seen:
                    return

        thread = threading.Thread(target=act, daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        self.stream.close()
        self.keyboard.close()
        os.close(self.slave)
        os.close(self.master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    made = Terminal(monkeypatch)
    yield made
    made.close()


@pytest.mark.timeout(60)
def test_a_terminal_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch, terminal: Terminal) -> None:
    Answers(monkeypatch, status(worker(0), rank(0)), UNREACHABLE, status(worker(0), rank(0), life="b"))
    hands = terminal.press_when((b"another coordinator", b"h"), (b"mark the next", b"q"))
    assert loop.show_top(lambda: ADDRESS, terminal.console) is False
    hands.join(30)
    assert not hands.is_alive() and b"\x1b[?1049h" in terminal.seen, "another screen, and back"
    assert terminal.seen.rindex(b"\x1b[?25h") > terminal.seen.rindex(b"\x1b[?25l"), "the cursor is seen again"
    assert termios.tcgetattr(terminal.slave) == terminal.before


@pytest.mark.timeout(60)
def test_it_ends_with_the_job_and_moves_with_its_coordinator(
    monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    answers = Answers(monkeypatch, status(worker(0)), UNREACHABLE, status(worker(0)), UNREACHABLE)
    places = iter([ADDRESS, "tcp://h:2", None])
    hands = terminal.press_when()
    assert loop.show_top(lambda: next(places), terminal.console) is True
    hands.join(30)
    assert answers.asked == [ADDRESS, "tcp://h:2"]
    assert termios.tcgetattr(terminal.slave) == terminal.before


@pytest.mark.timeout(60)
def test_who_is_refused_hears_why_on_a_terminal_that_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch, terminal: Terminal
) -> None:
    Answers(monkeypatch, RefusedError("not with this key"))
    hands = terminal.press_when()
    with pytest.raises(RefusedError, match="not with this key"):
        loop.show_top(lambda: ADDRESS, terminal.console)
    hands.join(30)
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_a_pipe_gets_one_frame_with_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    Answers(monkeypatch, MANY, status(*MANY.members))
    stream = io.StringIO()
    assert loop.show_once(lambda: ADDRESS, PlainConsole(file=stream), pause=lambda _: None) == 0
    lines = stream.getvalue().splitlines()
    assert sum(line.strip().startswith("t-") for line in lines) == 100 and "\x1b" not in stream.getvalue()
    assert not any(line.endswith(" ") for line in lines) and "quit" not in lines[-1]
    Answers(monkeypatch, UNREACHABLE)
    with pytest.raises(CoordinatorUnreachableError):
        loop.show_once(lambda: ADDRESS, PlainConsole(file=stream), pause=lambda _: None)


def test_a_job_without_a_coordinator_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whereabouts, "WATCH_EVERY_S", 0.0)
    asked: list[JobState] = []

    def engine() -> JobState:
        address = "tcp://h:1" if len(asked) == 5 else None
        asked.append(JobState("toy", "pending", address, "it is being prepared"))
        return asked[-1]

    stream = io.StringIO()
    await_coordinator(tmp_path, engine, PlainConsole(file=stream))
    assert len(asked) == 6 and asked[-1].coordinator is not None
    assert "it is being prepared" in stream.getvalue() and "as soon as its coordinator" in stream.getvalue()
    stream = io.StringIO()
    await_coordinator(tmp_path, lambda: JobState("toy", "failed"), PlainConsole(file=stream))
    assert stream.getvalue() == ""


def test_a_job_that_has_ended_shows_its_end(tmp_path: Path) -> None:
    from tests.unit.command_line import invoke

    (tmp_path / "events.jsonl").write_text(
        '{"t": 1, "event": "coordinator_started", "address": "tcp://h:1"}\n'
    )
    (tmp_path / "result.json").write_text('{"status": "completed", "job": "toy"}')
    result = invoke("top", "--output", str(tmp_path))
    assert result.exception is None and '"completed"' in result.output
