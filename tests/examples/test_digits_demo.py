"""The demo's parts, without processes: its story, the throughput it draws, its table and its picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from examples.digits import comparison, demo
from examples.digits.comparison import Comparison
from examples.digits.picture import draw
from examples.digits.story import Join, Kill, Leave, Say, Story
from examples.digits.throughput import Change, Throughput, throughput

ROOT = Path(demo.ROOT)


def event(name: str, t: float = 0.0, **fields: Any) -> dict[str, Any]:
    return {"t": t, "event": name, **fields}


def begun(story: Story, workers: int = 2) -> None:
    """A job with its coordinator and its workers, before its first step."""
    story.see(event("coordinator_started", address="tcp://c:1"))
    for number in range(workers):
        story.see(event("teacher_started", id=f"teacher-{number}", pid=100 + number))
        assert story.see(event("teacher_joined", id=f"teacher-{number}")) == []


def step(story: Story, number: int) -> list[Any]:
    return story.see(event("report", rank=0, step=number, steps=100))


def test_the_story_says_whom_it_kills_and_kills_when_that_is_on_record() -> None:
    story = Story("guest")
    begun(story)
    assert step(story, 0) == step(story, 24) == []
    (say,) = step(story, 25)
    assert say.coordinator == "tcp://c:1" and "kill -9 100, which is worker teacher-0" in say.text
    assert step(story, 26) == [] and story.killed is None
    assert story.see(event("remark", text=say.text)) == [Kill("teacher-0", 100)]
    assert story.killed == "teacher-0"
    assert story.see(event("remark", text=say.text)) == [], "once"


def test_the_story_lets_another_worker_join_after_the_kill_and_leave_at_the_end() -> None:
    story = Story("guest")
    begun(story)
    step(story, 0)
    (kill,) = step(story, 60)
    assert step(story, 70) == [], "first one is killed"
    story.see(event("remark", text=kill.text))
    (say,) = step(story, 71)
    assert isinstance(say, Say) and "guest" in say.text
    assert story.see(event("remark", text=say.text)) == [Join("tcp://c:1")]
    assert step(story, 99) == [] and not story.guest_joined
    story.see(event("teacher_joined", id="guest"))
    assert story.guest_joined
    assert story.see(event("student_stopped", id="student-0")) == [Leave()]


def test_the_story_counts_from_where_a_resumed_job_goes_on() -> None:
    story = Story("guest")
    begun(story)
    assert step(story, 60) == step(story, 69) == []
    assert len(step(story, 70)) == 1


def test_the_story_kills_nobody_who_is_the_last() -> None:
    story = Story("guest")
    begun(story, workers=2)
    step(story, 0)
    story.see(event("teacher_lost", id="teacher-0"))
    assert step(story, 50) == []
    story.see(event("teacher_restarted", id="teacher-0.r1", pid=200))
    story.see(event("teacher_joined", id="teacher-0.r1"))
    assert "worker teacher-1" in step(story, 51)[0].text


def test_the_throughput_is_that_of_the_last_run_with_its_changes() -> None:
    # 10 steps of 8 a second; one worker is killed at 2 s, and only 5 steps a second follow.
    times = [0.0, 1.0, 2.0, 4.0, 6.0]
    events = [
        event("report", 0.0, rank=0, step=1),
        event("teacher_joined", 5.0, id="of an earlier run"),
        event("job_started", 90.0),
        event("teacher_joined", 95.0, id="teacher-0"),
        event("teacher_joined", 96.0, id="teacher-1"),
        *(event("report", 100 + t, rank=0, step=10 * n) for n, t in enumerate(times)),
        event("report", 103.0, rank=1, step=99),
        event("teacher_crashed", 102.0, id="teacher-0", code=-9),
        event("teacher_restarted", 102.5, id="teacher-0.r1"),
        event("teacher_lost", 103.0, id="teacher-0"),
        event("teacher_joined", 104.0, id="teacher-0.r1"),
        event("teacher_joined", 105.0, id="guest"),
        event("teacher_left", 107.0, id="guest"),
    ]
    found = throughput(events, batch_size=8, epoch_samples=80)
    assert found.workers == 2
    assert [(c.time_s, c.worker, c.what) for c in found.changes] == [
        (2.0, "teacher-0", "killed"),
        (4.0, "teacher-0.r1", "restarted"),
        (5.0, "guest", "joined"),
    ]
    rates = dict(zip(found.times_s, found.samples_per_s, strict=True))
    assert rates[1.0] == pytest.approx(80) and rates[4.0] == pytest.approx(40)
    assert rates[2.0] == pytest.approx(60), "half of the second around it before the kill"
    assert throughput(events[:1], 8, 80) == Throughput([], [], 0, [])


def test_a_short_last_batch_counts_with_its_samples() -> None:
    events = [event("report", t, rank=0, step=s) for t, s in ((0.0, 0), (1.0, 2), (2.0, 4))]
    rates = throughput(events, batch_size=8, epoch_samples=10).samples_per_s
    assert rates == pytest.approx([10.0] * len(rates))


FOUND = Comparison(
    accuracy={"teacher": 0.99, "plain": 0.9, "distilled": 0.98},
    labels={"teacher": 1198, "plain": 50, "distilled": 0},
    parameters={"teacher": 1_000_000, "plain": 5_000, "distilled": 5_000},
    images_per_s={"teacher": 2_000.0, "plain": 100_000.0, "distilled": 100_000.0},
    test_images=600,
    gains=[6.0, 8.0, -1.0],
    samples=63_494,
    lost=0,
    repeated=0,
    throughput=Throughput(
        [0.0, 1.0, 2.0, 3.0],
        [100.0, 50.0, 100.0, 150.0],
        2,
        [Change(0.5, "teacher-0", "killed"), Change(2.5, "$guest^", "joined")],
    ),
)


def test_the_comparison_says_what_a_person_wants_to_know(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    Console(width=80).print(comparison.table(FOUND))
    said = capsys.readouterr().out
    for line in said.splitlines():
        assert len(line) <= 80
    plain, distilled = (
        next(x for x in said.splitlines() if f"{w} student" in x) for w in ("plain", "distilled")
    )
    assert "50 true labels" in plain and "90.00%" in plain and plain.split()[6] == "60"
    assert "teacher's labels" in distilled and "98.00%" in distilled and distilled.split()[5] == "12"
    gain, student = comparison.findings(FOUND)
    assert "+8.0 points; over 3 seeds +4.3 ± 4.7, -1.0 to +8.0, positive in 2" in gain
    assert "200 times smaller and 50 times faster" in student


def test_the_comparison_is_whole_where_its_output_is_no_terminal() -> None:
    wide = replace(FOUND, parameters=dict.fromkeys(FOUND.parameters, 10**30))
    code = (
        "from examples.digits import comparison\n"
        "from tests.examples.test_digits_demo import FOUND, replace\n"
        f"found = replace(FOUND, parameters={wide.parameters})\n"
        "comparison.PlainConsole().print(comparison.table(found))"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, capture_output=True, text=True
    ).stdout
    assert "…" not in said
    for row in said.splitlines()[-3:]:
        assert f"{10**30:,}" in row and row.endswith(",000")
        assert len(row) > 80


def test_the_comparison_does_not_claim_what_did_not_happen() -> None:
    story = Story("guest")
    said = "\n".join(comparison.fleet(replace(FOUND, lost=3, repeated=4), story))
    assert "nobody was killed" in said and "nobody joined" in said and "3 lost, 4 repeated" in said
    story.killed, story.guest_joined = "teacher-1", True
    fleet, samples = comparison.fleet(FOUND, story)
    assert "teacher-1 killed, guest joined" in fleet
    assert "63,494 counted in the training loop: 0 lost, 0 repeated" in samples


def test_the_picture_shows_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    texts: list[str] = []
    save = Figure.savefig

    def look(figure: Figure, *args: Any, **options: Any) -> None:
        for axes in figure.axes:
            texts.extend(text.get_text() for text in (*axes.texts, axes.title, axes._left_title))
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", look)
    draw(FOUND, tmp_path / "comparison.png")
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    said = "\n".join(texts)
    for part in (
        "90.0% right",
        "98.0% right",
        "+8.0 points",
        "better in 2 of 3",
        "200x smaller",
        "50x faster",
    ):
        assert part in said
    for part in ("teacher-0 killed", "$guest^ joins", "1 worker\n", "0 lost, 0 repeated"):
        assert part in said


def test_a_job_without_accuracies_is_not_compared(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps({"metrics": {"accuracy": 0.9, "lost": 0}}))
    with pytest.raises(
        SystemExit, match="has no teacher_accuracy, plain_accuracy, repeated: nothing to compare"
    ):
        comparison.collect(tmp_path)


class _Job:
    """A process that runs until the file has been looked at so often."""

    pid = 7

    def __init__(self, looks: list[Any]) -> None:
        self._looks = looks

    def poll(self) -> int | None:
        if not self._looks:
            return 0
        self._looks.pop(0)()
        return None


def test_only_the_events_of_this_very_run_are_followed(tmp_path: Path) -> None:
    """Else the demo would kill whoever has the number of a process of an earlier run."""
    path = tmp_path / "events.jsonl"

    def write(text: str) -> None:
        with path.open("a") as stream:
            stream.write(text)

    def add(*events: dict[str, Any]) -> None:
        write("".join(json.dumps(each) + "\n" for each in events))

    def set_aside() -> None:
        path.rename(tmp_path / "earlier.jsonl")
        add(event("job_started", pid=7), event("new"))

    old = [event("job_started", pid=6), event("teacher_started", id="teacher-0", pid=1)]
    looks = [
        lambda: add(*old),
        lambda: add(event("job_started", pid=7), event("first")),
        lambda: write('{"t": 0, "event": '),
        lambda: None,
        lambda: write('"in two parts"}\n{"t": 0, "eve\n'),
    ]
    job: Any = _Job(looks)
    found = [each["event"] for each in demo.follow(path, job)]
    assert found == ["job_started", "first", "in two parts"]
    path.unlink()
    add(*old)
    job = _Job([lambda: None, set_aside])
    assert [each["event"] for each in demo.follow(path, job)] == ["job_started", "new"]


@pytest.mark.parametrize(
    ("folder", "arguments", "said"),
    [
        (ROOT, ["--outputs-of", "x"], "unrecognized arguments: --outputs-of x"),
        (Path("/"), [], f"start the demo in the project's folder, {ROOT}"),
    ],
)
def test_a_demo_that_cannot_start_says_why(folder: Path, arguments: list[str], said: str) -> None:
    command = [sys.executable, str(ROOT / "examples" / "digits" / "demo.py"), *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=150)
    assert ended.returncode != 0 and said in ended.stderr
