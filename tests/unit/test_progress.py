"""What a person sees of a run."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edldist.observe.event_words import describe_event
from edldist.wording import duration, number
from edldist_launch.record.tally import Figures, Tally
from edldist_launch.view.console import PlainConsole, shown
from edldist_launch.view.curves import collect, draw_curves
from edldist_launch.view.progress import (
    ProgressView,
    plain_line,
    show_result,
)

FIGURES = Figures(
    step=120,
    steps=500,
    epoch=1,
    epochs=5,
    samples_per_s=1834.2,
    steps_per_s=28.7,
    eta_s=13.2,
    workers=1,
    ranks=1,
    buffered=6,
    starved_s=0.42,
    metrics={"loss": 0.123456, "accuracy": 0.97, "note": "ok"},
)
RESULT: dict[str, Any] = {
    "status": "completed",
    "job": "digits",
    "steps": 500,
    "epochs": 5,
    "samples": 32000,
    "wall_s": 75.2,
    "samples_per_s": 1800.5,
    "skipped_samples": 0,
    "missed_samples": 0,
    "left_out_samples": 0,
    "spikes": 0,
    "rollbacks": 0,
    "retracted_labels": 0,
    "doubtful_labels": 0,
    "starved_s": 0.4,
    "backpressure_s": 3.0,
    "worker_s": 140.0,
    "found_samples": 0,
    "coalesced_samples": 0,
    "metrics": {"accuracy": 0.97},
    "teachers": {"joined": 2, "left": 0, "lost": 1},
    "tasks": {"done": 500, "requeued": 2, "duplicates": 0, "hedged": 0, "failed": 0},
    "student_restarts": 1,
}


def console(terminal: bool = False) -> PlainConsole:
    return PlainConsole(file=io.StringIO(), force_terminal=terminal, width=100)


def written(target: PlainConsole) -> str:
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (0.4, "0s"), (59.6, "1m00s"), (125, "2m05s"), (11220, "3h07m"), (float("inf"), "-")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def test_numbers_stay_short() -> None:
    assert [number(value) for value in (0.123456, 0.0, 1e-7, 12, True, "x", None)] == [
        "0.1235",
        "0",
        "1.000e-07",
        "12",
        "True",
        "x",
        "None",
    ]


def test_a_plain_line_says_everything_once() -> None:
    assert plain_line(FIGURES, 2, 65) == (
        "[1m05s] · epoch 1/5 · step 120/500 · 1834 samples/s · loss 0.1235 · accuracy 0.97 · note ok · "
        "workers 1/2 · buffered 6 · starved 0.4s · eta 13s"
    )
    assert "step - " in plain_line(Figures(), 2, 0)


def test_samples_that_were_left_out_are_seen_in_every_view_and_at_the_end() -> None:
    words = "left out 64 samples that no worker could label"
    figures = replace(FIGURES, skipped_samples=64)
    assert words in plain_line(figures, 2, 65)
    live, plain, end = console(terminal=True), console(), console()
    for target in (live, plain):
        with ProgressView(target, "digits", 2) as view:
            view.update(figures, "training", 65)
        assert words in written(target)
    show_result(end, {**RESULT, "skipped_samples": 1})
    assert re.search(r"left out +│ 1 sample that no worker could label", written(end))
    assert "left out" not in plain_line(FIGURES, 2, 65)


def test_samples_without_labels_of_a_missing_teacher_are_seen_in_every_view_and_at_the_end() -> None:
    words = "64 samples without labels of a missing teacher"
    figures = replace(FIGURES, missed_samples=64)
    assert words in plain_line(figures, 2, 65)
    live, plain, end = console(terminal=True), console(), console()
    for target in (live, plain):
        with ProgressView(target, "digits", 2) as view:
            view.update(figures, "training", 65)
        assert words in written(target)
    show_result(end, {**RESULT, "missed_samples": 1})
    assert re.search(r"went on with +│ 1 sample without labels of a missing teacher", written(end))
    assert "missing" not in plain_line(FIGURES, 2, 65)


def test_loss_spikes_are_in_the_summary_where_there_were_any() -> None:
    shown, quiet = console(), console()
    show_result(shown, {**RESULT, "spikes": 3, "rollbacks": 2, "left_out_samples": 128})
    assert re.search(r"loss spikes +│ 3 seen, 2 rollbacks, 128 samples left out", written(shown))
    show_result(quiet, RESULT)
    assert "spikes" not in written(quiet)


@pytest.mark.parametrize("key", Tally().result(1.0))
def test_every_figure_of_the_result_is_seen_at_the_end(key: str) -> None:
    changed = {"metrics": {"accuracy": 4321.0}, "teachers": {"joined": 4321, "left": 0, "lost": 0}}
    if isinstance(RESULT[key], dict) and key not in changed:
        changed[key] = dict.fromkeys(RESULT[key], 4321)
    target = console()
    show_result(target, {**RESULT, key: changed.get(key, 4321)})
    assert "4321" in written(target)


def test_a_job_that_labels_counts_samples_and_tells_what_its_store_holds() -> None:
    target = console()
    with ProgressView(target, "digits", 2, "labelling") as view:
        view.update(FIGURES, "labelling", 65)
    assert "labelled sample 120/500" in written(target)
    labels = {"recipe": "c0ffee", "model": "m:f", "samples": 4321, "files": 3, "bytes": 98765}
    show_result(target, {**RESULT, "labels": [labels]}, "labelling")
    assert "labels of m:f" in written(target) and "4,321 samples in 3 files, 98,765 bytes" in written(target)
    assert "steps" not in written(target)


def test_without_a_terminal_there_is_a_line_every_five_seconds() -> None:
    target = console()
    with ProgressView(target, "digits", 2) as view:
        for quarter in range(44):
            view.update(FIGURES, "training", quarter / 4)
        view.say("teacher t-0 lost")
    lines = written(target).splitlines()
    assert [line.split(" ")[0] for line in lines] == ["[0s]", "[5s]", "[10s]", "teacher"]


def test_on_a_terminal_one_view_shows_every_figure() -> None:
    target = console(terminal=True)
    with ProgressView(target, "digits", 2) as view:
        view.update(FIGURES, "training", 65)
    text = written(target)
    for part in ("digits", "training", "1/5", "120/500", "1834", "28.7", "1/2", "6 batches", "0.4 s", "13s"):
        assert part in text
    assert "accuracy 0.97" in text


@pytest.mark.parametrize("text", ["[/data/run1]", "answer [/INST]", "[red]x", ":smile:", "\\[x]"])
def test_texts_of_a_job_are_text_wherever_they_stand(text: str) -> None:
    target = console()
    figures = replace(FIGURES, metrics={"note": text, text: 1})
    with ProgressView(target, "digits", 2) as view:
        view.say(text)
        view.update(figures, "training", 0)
    show_result(target, RESULT | {"metrics": {"note": text, text: 1.0}})
    assert written(target).count(text) == 5
    terminal = console(terminal=True)
    with ProgressView(terminal, "digits", 2) as view:
        view.update(figures, "training", 0)
    assert f"note {text}" in written(terminal)


def test_texts_cannot_move_the_cursor() -> None:
    target = console()
    target.print("a\x1b[2Jb\x9bc\rd\x07", soft_wrap=True)
    assert written(target) == "a\ufffd[2Jb\ufffdc\ufffdd\ufffd\n"
    assert shown("\udcff") == "?"
    assert len(shown("x" * 10_000)) < 5_000


def test_changes_of_state_in_words() -> None:
    assert describe_event({"t": 1, "event": "teacher_lost", "id": "t-0", "silent_s": 3.21}) == (
        "teacher t-0 lost (silent for 3.2 s)"
    )
    assert describe_event({"t": 1, "event": "teacher_left", "id": "t-0", "reason": "drained"}) == (
        "teacher t-0 left (drained)"
    )
    assert describe_event({"t": 1, "event": "report", "step": 1}) is None
    assert describe_event({"event": "teacher_lost", "id": "t-0", "silent_s": "soon"}) == (
        "teacher t-0 lost (silent for soon s)"
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            {"event": "teacher_quarantined", "worker": "t-0", "for_s": 30.0, "error": "ValueError: sick"},
            "teacher t-0 gets no work for 30 s, it keeps failing: ValueError: sick",
        ),
        (
            {
                "event": "task_poisoned",
                "teacher": "big",
                "batch": 7,
                "samples": "16..31",
                "error": "ValueError: bad pixel",
            },
            "samples 16..31 of batch 7 cannot be labelled by teacher big: ValueError: bad pixel",
        ),
        (
            {"event": "labels_missing", "student": "rank0", "teacher": "big", "gone_s": 30.04},
            "teacher big has had no worker for 30.0 s: batches go on without its labels",
        ),
        (
            {"event": "labels_back", "student": "rank0", "teacher": "big", "gone_s": 45.5},
            "teacher big is back after 45.5 s: its labels are used again",
        ),
        (
            {
                **{"event": "loss_spiked", "step": 12, "what": "loss", "value": "nan", "bound": "2.5"},
                **{"epoch": 1, "position": 640},
            },
            "spike after step 12, epoch 1: loss is nan (bound 2.5), behind sample 640",
        ),
        (
            {"event": "rolled_back", "step": 12, "restored": 10, "batches": 3, "in_a_row": 2},
            "back from step 12 to 10, leaving out 3 batches",
        ),
        ({"event": "remark", "text": "the power is cut at noon"}, "the power is cut at noon"),
        (
            {"event": "checkpoint_failed", "step": 50, "reason": "no space left"},
            "checkpoint of step 50 failed: no space left",
        ),
        (
            {"event": "checkpoint_damaged", "step": 50, "reason": "state.json differs"},
            "checkpoint of step 50 damaged: state.json differs",
        ),
    ],
)
def test_trouble_is_said_with_its_reason(line: dict[str, object], words: str) -> None:
    assert describe_event(line) == words
    assert describe_event({"event": line["event"]}), "members may send anything"


def test_the_result_is_a_table() -> None:
    target = console()
    show_result(target, RESULT)
    text = written(target)
    for part in ("completed", "500 (epochs 5)", "2 joined, 0 left, 1 lost", "2 requeued", "1m15s", "0.97"):
        assert part in text


EVENTS = [
    {"t": 1.0, "event": "report", "rank": 0, "step": 1, "loss": 3.0},
    {"t": 1.0, "event": "report", "rank": 1, "step": 1, "loss": 9.0},
    {"t": 2.0, "event": "report", "rank": 0, "step": 2, "loss": 2.0, "accuracy": 0.5},
    {"t": 2.5, "event": "report", "rank": 0, "step": 2, "loss": 2.5},
    {"t": 3.0, "event": "report", "rank": 0, "accuracy": 0.6, "loss": None},
    {"t": 3.0, "event": "progress", "samples_per_s": 10.0, "workers": 2},
    {"t": 4.5, "event": "progress", "samples_per_s": 20.0, "workers": 1},
]


def test_series_follow_rank_zero_and_the_last_value_of_a_step() -> None:
    series = collect(EVENTS)
    assert series.metrics == {"loss": {1: 3.0, 2: 2.5}, "accuracy": {2: 0.6}}
    assert (series.times_s, series.samples_per_s, series.workers) == ([0.0, 1.5], [10.0, 20.0], [2.0, 1.0])


def test_workers_that_come_and_go_are_marked_at_their_time_while_the_job_trains() -> None:
    def change(t: float, event: str, who: str) -> dict[str, Any]:
        return {"t": t, "event": event, "id": who}

    before, after = change(2.0, "teacher_joined", "t-0"), change(9.0, "teacher_left", "t-0")
    between = [change(3.5, "teacher_lost", "t-1"), change(4.0, "teacher_joined", "guest")]
    series = collect([before, *EVENTS[:6], *between, EVENTS[6], after])
    assert series.changes == [(0.5, "t-1 lost"), (1.0, "guest joined")]
    crash = [change(3.2, "teacher_crashed", "t-1"), *between]
    assert collect([*EVENTS[:6], *crash, EVENTS[6]]).changes[0] == (pytest.approx(0.2), "t-1 crashed")
    assert [what for _, what in collect([*EVENTS[:6], *crash, EVENTS[6]]).changes].count("t-1 lost") == 0
    paused = [*EVENTS, {"t": 5.0, "event": "job_completed"}, {**after, "t": 5.1}, {**before, "t": 8.0}]
    again = [{**EVENTS[6], "t": 10.0}, change(10.5, "teacher_lost", "t-0"), {**EVENTS[6], "t": 11.0}]
    assert collect([*paused, *again]).changes == [(2.0, "t-0 lost")], "in seconds of running"
    assert collect(between).changes == []  # a job that never trained


def test_the_marks_are_drawn_whatever_the_workers_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    import json

    from matplotlib.figure import Figure

    events, texts = tmp_path / "events.jsonl", []

    def look(figure: Figure, *_: object, **__: object) -> None:
        axes = figure.axes[2]
        texts.extend(text.get_text().strip() for text in axes.texts)
        texts.extend(line.get_xdata()[0] for line in axes.lines[1:])
        figure.canvas.draw()

    monkeypatch.setattr(Figure, "savefig", look)
    lost = {"t": 3.5, "event": "teacher_lost", "id": "$\\frac"}
    events.write_text("\n".join(json.dumps(event) for event in [*EVENTS[:6], lost, EVENTS[6]]))
    assert draw_curves(events, tmp_path / "curves.png", "digits")
    assert texts == ["$\\frac lost", 0.5]


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    import json

    events, picture = tmp_path / "events.jsonl", tmp_path / "curves.png"
    events.write_text("")
    assert not draw_curves(events, picture, "nothing yet")
    events.write_text("\n".join(json.dumps(event) for event in EVENTS))
    assert draw_curves(events, picture, "digits (completed)")
    assert picture.read_bytes().startswith(b"\x89PNG")
