"""``report.html``, and runs side by side: what is told, of whatever is left in a folder."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from edldist.errors import ConfigError
from edldist_launch.view.report.chart import MOST_POINTS, Chart, Line, Mark, draw_chart, ticks
from edldist_launch.view.report.charts import charts_of, draw_timeline, overlaid, tone_of
from edldist_launch.view.report.comparison import comparison_of, names_of
from edldist_launch.view.report.evidence import Evidence, read_evidence
from edldist_launch.view.report.findings import findings
from edldist_launch.view.report.one_run import report_of
from edldist_launch.view.report.writing import write_comparison, write_report
from edldist_launch.view.series import collect
from tests.unit.command_line import invoke
from tests.unit.test_progress import RESULT

EVIL = '</style><script>alert(1)</script><img src="http://x/y" onerror=a>\x1b[31m & "q"'


def events(*more: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"t": 100.0, "event": "job_started", "job": "toy", "pid": 1},
        {"t": 100.1, "event": "environment", "python": "3.11.2", "torch": "2.13", "cpus": 2},
        {"t": 101.0, "event": "coordinator_started", "address": "tcp://h:1"},
        {"t": 102.0, "event": "teacher_joined", "id": "t-0", "name": "big", "host": "h", "device": "cuda:0"},
        *(
            {"t": 103.0 + i, "event": "progress", "step": 10 * i, "samples_per_s": 90.0 + i}
            | {"workers": 1, "buffered": i % 5, "starved_s": 0.5 * i}
            for i in range(100)
        ),
        *(
            {"t": 103.0 + i, "event": "report", "rank": 0, "step": 10 * i, "loss": 1 / (1 + i) + i % 2 / 9}
            for i in range(100)
        ),
        {"t": 150.0, "event": "checkpoint_saved", "step": 470, "bytes": 9, "seconds": 0.5},
        *more,
    ]


def write(
    folder: Path, lines: Sequence[dict[str, Any]], result: Any = None, job: str = "name: toy\n"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))
    (folder / "job.yaml").write_text(job)
    return folder


TONES = ("good", "wait", "bad", "quiet")


class Page(HTMLParser):
    """Its tags, texts and what it would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.fetched: list[str] = []
        self.feed(page)
        self.close()
        self.words = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [
            f"{tag} {name}" for name, _ in attrs if name in ("src", "href") or name.startswith("on")
        ]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_of(folder: Path) -> Page:
    return Page(report_of(read_evidence(folder), "made by a test"))


# --- one run --------------------------------------------------------------------------------------


def test_a_report_says_what_a_run_came_to(tmp_path: Path) -> None:
    result = RESULT | {"job": "toy", "samples": 256_000, "starved_s": 49.5, "metrics": {"loss": 0.25}}
    page = page_of(write(tmp_path / "run", events(), result, "name: toy\nteachers: [{model: 'a:b'}]\n"))
    assert page.fetched == [] and "script" not in page.tags and page.tags.count("style") == 1
    assert page.tags.count("svg") == 6, "throughput, workers, buffers, waiting, loss, and what happened"
    for words in (
        "completed",
        "256,000",
        "loss",
        "0.25",
        "torch 2.13",
        "1 worker on h, device cuda:0",
        "a:b",
    ):
        assert words in page.words, words
    assert "checkpoint of step 470 saved" in page.words
    assert "The teachers held the students up: of 1m39s" in page.words


def test_a_run_that_never_trained_has_a_timeline_from_its_first_event(tmp_path: Path) -> None:
    early = [line for line in events() if line["event"] not in ("progress", "report")]
    evidence = read_evidence(write(tmp_path, early, {"status": "failed", "metrics": {"once": 0.5}}))
    assert [told.at_s for told in evidence.series.happened] == [0.0, 1.0, 2.0, 50.0]
    assert page_of(tmp_path).tags.count("svg") == 1, "nothing but what happened"


def test_words_of_others_are_text_in_a_report(tmp_path: Path) -> None:
    evil = [
        {"t": 110.0, "event": "teacher_lost", "id": EVIL, "reason": EVIL, "silent_s": EVIL},
        {"t": 111.0, "event": "report", "rank": 0, "step": 1, EVIL: 2.0},
        {"t": 112.0, "event": "remark", "text": EVIL},
        {"t": 113.0, "event": EVIL, "id": EVIL},
        {"t": 114.0, "event": "environment", EVIL: EVIL},
    ]
    result = {
        "status": EVIL,
        "job": EVIL,
        "reason": EVIL,
        "metrics": {EVIL: EVIL},
        "wall_s": EVIL,
        "tasks": EVIL,
    }
    folder = write(tmp_path / "run", events(*evil), result, EVIL)
    for page in (page_of(folder), Page(comparison_of([read_evidence(folder)] * 2, EVIL))):
        assert page.fetched == [] and not {"script", "img"} & set(page.tags)
        assert "\x1b" not in page.words
    assert "alert(1)" in page.words, "it is shown"


def test_a_report_fetches_nothing_and_holds_well_formed_charts(tmp_path: Path) -> None:
    write_report(write(tmp_path / "run", events()))
    page = (tmp_path / "run" / "report.html").read_text()
    assert "default-src 'none'" in page and "prefers-color-scheme: dark" in page
    drawn = re.findall(r"<svg.*?</svg>", page)
    assert len(drawn) == 6
    for svg in drawn:
        ElementTree.fromstring(svg)
        assert 'role="img"' in svg and "aria-label" in svg
    assert not re.search(r"(nan|inf)[ \"L]", "".join(drawn))


@pytest.mark.parametrize(
    ("event", "words", "tone"),
    [
        (
            {"event": "teacher_crashed", "id": "t-1", "code": -9},
            "1 crash of a teacher worker (t-1)",
            "wait",
        ),
        (
            {"event": "teacher_lost", "id": "t-1", "silent_s": 3.0},
            "1 teacher worker was lost (t-1)",
            "wait",
        ),
        ({"event": "checkpoint_failed", "step": 7, "reason": "no space"}, "step 7 failed: no space", "bad"),
        ({"event": "coordinator_started"}, "The coordinator was started again once", "quiet"),
        ({"event": "job_started"}, "The folder holds 2 runs", "quiet"),
    ],
)
def test_what_went_wrong_is_said(event: dict[str, Any], words: str, tone: str, tmp_path: Path) -> None:
    evidence = read_evidence(write(tmp_path, events({"t": 120.0, **event}), {"status": "completed"}))
    assert [found.tone for found in findings(evidence) if words in found.words] == [tone]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "The run left no result: it was killed"),
        ({"status": "failed", "reason": "the disk burnt"}, "The run failed: the disk burnt"),
        ({"status": "failed"}, "and gave no reason"),
        ({"status": "interrupted", "reason": "goes on"}, "The run was interrupted: goes on."),
        ({"status": "completed", "skipped_samples": 12_000}, "12,000 samples were left out"),
        ({"status": "completed", "student_restarts": 2}, "Restarts of the students: 2."),
        ({"status": "completed", "tasks": {"failed": 3}}, "3 tasks failed on a worker's model"),
        ({"status": "completed", "backpressure_s": 50}, "The students held the teachers up"),
    ],
)
def test_how_it_ended_and_what_was_left_out_is_said(
    result: dict[str, Any] | None, words: str, tmp_path: Path
) -> None:
    page = page_of(write(tmp_path, events(), result))
    assert words in page.words


@pytest.mark.parametrize(("workers", "words"), [(2, "Fewer workers would"), (1, "A slower worker would")])
def test_nobody_is_told_to_do_without_the_only_worker(workers: int, words: str, tmp_path: Path) -> None:
    lines = [line | ({"workers": workers} if line["event"] == "progress" else {}) for line in events()]
    page = page_of(write(tmp_path, lines, {"status": "completed", "backpressure_s": 50}))
    assert words in page.words


def test_a_run_without_trouble_says_so(tmp_path: Path) -> None:
    calm = [line | ({"starved_s": 0.0} if line["event"] == "progress" else {}) for line in events()]
    evidence = read_evidence(write(tmp_path, calm, {"status": "completed"}))
    assert findings(evidence) == []
    assert "Nothing: no worker, rank or task was lost" in page_of(tmp_path).words


def test_a_job_that_runs_is_told_up_to_now(tmp_path: Path) -> None:
    evidence = read_evidence(write(tmp_path, events()), runs=True)
    assert evidence.status == "running"
    assert "The job still runs" in Page(report_of(evidence, "")).words


# --- what is missing or damaged -------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["", "\n  - {"])
def test_no_page_shows_a_password_of_the_job_file(damage: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "events.jsonl").write_text('{"t": 1.0, "event": "job_started", "job": "x"}\n')
        env = f"{{HF_TOKEN: hf_{name}, OMP_NUM_THREADS: '{name}'}}"
        (folder / "job.yaml").write_text(f"name: x\nteachers:\n- {{model: 'a:b', env: {env}}}\n{damage}")
        write_report(folder)
    those = [read_evidence(tmp_path / name) for name in ("a", "b")]
    write_comparison(those, tmp_path / "both.html")
    pages = [path.read_text() for path in tmp_path.rglob("*.html")]
    assert len(pages) == 3 and not any("hf_" in page for page in pages)
    if not damage:
        assert "HF_TOKEN: (not shown)" in (tmp_path / "a" / "report.html").read_text()
        assert "env.OMP_NUM_THREADS" in (tmp_path / "both.html").read_text()


def test_half_a_file_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    folder = write(tmp_path, events())
    with (folder / "events.jsonl").open("ab") as stream:
        stream.write(
            b'\xff\xfe{"t": 3}\n{"t": "x", "event": "progress"}\n{"t": 9, "event": 7}\n{"t": 200.0, "ev'
        )
    (folder / "result.json").write_text('{"status": "comple')
    (folder / "job.yaml").write_text("a: [1,\n - {")
    evidence = read_evidence(folder)
    assert evidence.damage == (
        "events.jsonl: 4 lines cannot be read (lines 206, 207, 208, 209), and are left out",
        "result.json is damaged: what it said is not known",
        "job.yaml is damaged: settings cannot be compared",
    )
    page = page_of(folder)
    assert all(words in page.words for words in evidence.damage) and page.tags.count("svg") == 6


@pytest.mark.parametrize("value", ["many", None, True, math.inf, 1e300, [], {}, -1])
def test_figures_that_make_no_sense_are_no_figures(value: Any, tmp_path: Path) -> None:
    odd = [
        {"t": 130.0, "event": "progress", "step": value, "samples_per_s": value, "workers": value}
        | {"buffered": value, "starved_s": value},
        {"t": 131.0, "event": "report", "rank": 0, "step": value, "loss": value},
        {"t": 131.0, "event": "teacher_joined", "id": value, "host": value, "device": value},
    ]
    result = {key: value for key in RESULT} | {"status": "completed", "metrics": {"a": value}}
    folder = write(tmp_path, events(*odd), result)
    assert page_of(folder).tags.count("svg") == 6
    comparison_of([read_evidence(folder)] * 2, "")


@pytest.mark.parametrize("name", ["events.jsonl", "result.json", "job.yaml"])
def test_one_file_alone_makes_a_report(name: str, tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", events(), {"status": "completed"})
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / name).write_bytes((whole / name).read_bytes())
    page = page_of(alone)
    assert ("there is no events.jsonl" in page.words) == (name != "events.jsonl")


def test_where_no_run_was_written_there_is_no_report(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run was written there"):
        read_evidence(tmp_path)
    (tmp_path / "tune.json").touch()
    with pytest.raises(ConfigError, match="holds a tuning of edldist tune"):
        read_evidence(tmp_path)


# --- several runs ---------------------------------------------------------------------------------


def test_runs_are_compared_by_figures_settings_and_curves(tmp_path: Path) -> None:
    job = "name: toy\nstudent: {{args: [--lr, {}], env: {{}}}}\n"
    one = write(
        tmp_path / "a" / "out", events(), RESULT | {"status": "completed", "samples": 1000}, job.format(1)
    )
    two = write(
        tmp_path / "b" / "out", events(), RESULT | {"status": "failed", "samples": 2000}, job.format(2)
    )
    runs = [read_evidence(one), read_evidence(two)]
    assert names_of(runs) == ["a/out", "b/out"]
    page = Page(comparison_of(runs, ""))
    assert "samples 1,000 2,000" in page.words and "ended completed failed" in page.words
    assert "student.args[1] 1 2" in page.words and "student.args[0]" not in page.words
    assert page.tags.count("svg") == 5, "throughput, workers, buffers, waiting, loss"
    same = Page(comparison_of([runs[0], read_evidence(one)], ""))
    assert "None: the jobs are the same." in same.words and names_of([runs[0]] * 2) == ["out (1)", "out (2)"]
    (one / "job.yaml").unlink()
    assert "Not every run has a job file" in Page(comparison_of([read_evidence(one), runs[1]], "")).words


def test_runs_of_any_length_are_laid_over_each_other() -> None:
    empty, whole = collect([]), collect(events())
    assert [len(chart.lines) for chart in overlaid([("a", empty), ("b", whole)])] == [2, 2, 2, 2, 2]
    assert all(draw_chart(chart) for chart in overlaid([("a", empty), ("b", empty)]))


# --- charts ---------------------------------------------------------------------------------------


def test_ticks_are_round_and_few() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(3, 97) == [20, 40, 60, 80]
    assert ticks(0, 3, whole=True) == [0, 1, 2, 3]
    assert ticks(5, 5) == [5] and ticks(0, math.inf) == [0]
    for low, high in ((-1e9, 1e9), (1e-9, 2e-9), (0.999, 1.001)):
        assert 2 <= len(ticks(low, high)) <= 6 and low <= ticks(low, high)[0]


def test_a_line_breaks_where_nothing_is_known_and_long_ones_are_thinned() -> None:
    broken = draw_chart(Chart("c", "", "s", [Line("l", [0, 1, 2, 3, 4], [1, 2, math.nan, 3, 4])]))
    assert re.search(r'class="line c0" d="M[^"]*M[^"]*"', broken)
    values = [math.sin(i / 99) for i in range(50_000)]
    values[31_234] = 9.0
    long = draw_chart(Chart("c", "", "s", [Line("l", range(50_000), values)]))
    assert len(long) < 40 * MOST_POINTS and "mean" not in long
    (path,) = re.findall(r'class="line c0" d="([^"]*)"', long)
    heights = [float(point.split()[1]) for point in re.split("[ML]", path) if point]
    assert min(heights) < 30 < 120 < heights[0], "a spike of one step is seen"


def test_marks_and_levels_stand_on_their_chart() -> None:
    chart = Chart(
        "c", "u", "s", [Line("l", [0.0, 9.0], [5.0, 5.0])], [Mark(3, "a < b", "bad"), Mark(99, "far")]
    )
    drawn = draw_chart(chart)
    assert "a &lt; b" in drawn and "far" not in drawn and 'class="mark bad"' in drawn
    assert "nothing was recorded" in draw_chart(Chart("c", "", "s", [Line("l", [1.0], [math.nan])]))


def test_changes_are_marked_where_they_happened() -> None:
    lost = {"t": 133.0, "event": "student_lost", "id": "r", "rank": 0}
    series = collect(events(*[lost]))
    (told,) = [each for each in series.happened if each.event == "student_lost"]
    assert told.at_s == 30.0 and series.step_at(30.0) == 300.0 and series.step_at(1e9) is None
    loss = next(chart for chart in charts_of(series) if chart.title == "loss")
    assert [(mark.x, mark.tone) for mark in loss.marks] == [(300.0, "bad")]
    assert tone_of("teacher_crashed") == "bad" and tone_of("whatever") == "quiet"
    assert draw_timeline([]) == ""
    drawn = draw_timeline(series.happened)
    assert drawn.count("<title>") == len(series.happened)
    legend, _, lanes = drawn.partition("</p>")
    shapes = {tone: set(re.findall(rf'class="event {tone}".*? d="([^"]*)"', lanes)) for tone in TONES}
    there = {tone: shape for tone, shape in shapes.items() if shape}
    assert len(there) > 1 and all(len(shape) == 1 for shape in there.values()), "one shape for each tone"
    assert len(set.union(*there.values())) == len(there), "and none for two: colour alone tells nothing"
    assert set(re.findall(r'<b class="(\w+)"', legend)) == set(there)


# --- the command ----------------------------------------------------------------------------------


def test_the_command_writes_one_report_or_a_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write(tmp_path / name, events(), {"status": "completed"})
    result = invoke("report", "a")
    assert result.output == "a/report.html\n" and (tmp_path / "a" / "report.html").stat().st_size > 10_000
    assert invoke("report", "a", "b").output == "comparison.html\n"
    assert invoke("report", "a", "b", "--to", "c.html").output == "c.html\n"
    assert sorted(path.name for path in tmp_path.glob("*.html")) == ["c.html", "comparison.html"]
    (tmp_path / "b" / "result.json").write_text("{")
    assert "b: result.json is damaged" in invoke("report", "b").output


def test_the_command_says_that_a_job_still_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edldist_launch.record.folder import hold_folder

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a", events())
    with hold_folder(tmp_path / "a"):
        assert "the job of a still runs: the page ends here" in invoke("report", "a").output
    assert "still runs" not in invoke("report", "a").output


def test_a_page_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    write(tmp_path / "a", events())
    failure = invoke("report", str(tmp_path / "a"), "--to", str(tmp_path / "none" / "c.html")).exception
    assert failure is not None and "cannot write" in str(failure) and "No such file" in str(failure)


def test_evidence_of_a_folder_has_its_name(tmp_path: Path) -> None:
    assert Evidence(tmp_path, tmp_path.name).status == "killed"
