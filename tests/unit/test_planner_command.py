"""``edldist plan``: folders of runs in, a plan out; and what is said where they hold too little."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click import ClickException
from click.testing import CliRunner, Result

from edldist.config import load_job
from edldist.errors import ConfigError
from edldist_launch.cli.planner import plan
from edldist_launch.planner.logs import read_logs
from edldist_launch.planner.report import _ms
from tests.unit.planner import rows

STUDENT = {"event": "student_left", "t": 60.0, "rank": 0}
JOB = """\
name: planned
teachers: [{name: teacher, model: "a:b", batch_size: 32, replicas: 1}]
student: {script: train.py}
"""


def folder(
    path: Path,
    lines: list[bytes],
    own_s: float = 0.04,
    starved_s: float = 10.0,
    batches: int = 501,
    events: list[dict[str, Any]] | None = None,
) -> Path:
    """A run of 64 samples a batch, whose loop took its own time, and waited, for all of its batches."""
    path.mkdir()
    (path / "stages.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (path / "job.yaml").write_text(JOB)
    left = STUDENT | {
        "batches": batches,
        "samples": 64 * batches,
        "starved_s": starved_s,
        "loop_s": own_s * (batches - 1) + starved_s,
    }
    joined = {"event": "student_joined", "t": 1.0, "rank": 0, "low_watermark": 1, "high_watermark": 4}
    told = [joined, left] if events is None else events
    (path / "events.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in told))
    (path / "result.json").write_text(json.dumps({"status": "completed", "samples": 64 * batches}))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return folder(tmp_path / "run", rows((8, 16, 32, 64), 0.01, 0.001))


def called(*words: object) -> Result:
    """The command; ``return_value`` is its exit code."""
    return CliRunner().invoke(plan, [str(word) for word in words], standalone_mode=False)


def said(*words: object) -> str:
    """What is refused, in words."""
    error = called(*words).exception
    assert isinstance(error, ConfigError | ClickException)
    return error.format_message() if isinstance(error, ClickException) else str(error)


def test_a_run_is_read(run: Path) -> None:
    logs = read_logs(run)
    assert (logs.teacher, logs.position, logs.batch_size, logs.counts) == ("teacher", 0, 32, {"cpu": 1})
    assert (logs.loop.ranks, logs.loop.batch_samples, logs.samples) == (1, 64, 64 * 501)
    assert logs.loop.own_s == pytest.approx(0.04)
    assert logs.samples_per_s == pytest.approx(64 * 500 / 30)
    assert (logs.low_watermark, logs.high_watermark, logs.watermarks_known) == (1, 4, True)
    assert logs.steady and not logs.damage


def test_a_run_that_goes_on_is_read_by_its_progress(tmp_path: Path) -> None:
    course = [
        {"event": "progress", "t": float(t), "step": 10 * t, "samples_per_s": 640.0, "starved_s": 0.5 * t}
        for t in range(1, 11)
    ]
    logs = read_logs(folder(tmp_path / "run", rows((8, 32), 0.01, 0.001), events=course))
    assert (logs.loop.ranks, logs.loop.batch_samples) == (1, 64)
    assert logs.loop.own_s == pytest.approx(0.05)
    assert not logs.watermarks_known


def test_ranks_of_an_evaluation_and_of_restarts_are_no_ranks_more(tmp_path: Path) -> None:
    def left(rank: int, batches: int) -> dict[str, Any]:
        figures = {"batches": batches, "samples": 64 * batches, "starved_s": 1.0, "loop_s": 0.1 * batches}
        return STUDENT | {"rank": rank} | figures

    events = [left(0, 500), left(1, 500), left(0, 20), left(1, 3)]
    logs = read_logs(folder(tmp_path / "run", rows((8, 32), 0.01, 0.001), events=events))
    assert logs.loop.ranks == 2


def test_a_plan_is_told_with_what_it_rests_on(run: Path) -> None:
    result = called(run, "--efficiency", 0.9)
    assert result.return_value == 0, result.output
    # 1,600 samples a second are asked for; a worker gives 64 in 74 ms (and messages).
    assert "plan: 2 on cpu, batch size 64" in result.output
    for word in ("worker seconds", "the frontier", "checked", "assumed", "80 rows"):
        assert word in result.output


def test_a_run_that_was_held_up_by_what_no_row_tells_of_is_no_ground_for_a_plan(tmp_path: Path) -> None:
    slow = folder(tmp_path / "run", rows((8, 16, 32, 64), 0.01, 0.001), starved_s=200.0)
    result = called(slow, "--efficiency", 0.9)
    assert "do not trust this plan" in result.output


def test_times_of_tasks_that_the_replay_does_not_show_are_said_to_be_of_few_rows(tmp_path: Path) -> None:
    """As of a short run, whose first pass is one of four."""
    first = folder(tmp_path / "run", rows((8, 16, 32, 64), 0.01, 0.001, each=4, total_s=5.0), starved_s=22.0)
    told = called(first).output
    assert "16 stage rows told of them: let it run for longer" in told
    assert "do not trust this plan" not in told


def test_what_is_left_of_two_clocks_that_agree_is_no_time() -> None:
    assert [_ms(seconds) for seconds in (1.1e-16, 0.0005, 2.0)] == ["0 ms", "0.5 ms", "2 s"]


def test_a_plan_is_told_to_programs_and_written_for_jobs(run: Path, tmp_path: Path) -> None:
    keys, output = tmp_path / "plan.yaml", tmp_path / "plan"
    result = called(run, "--json", "--write", keys, "--output", output)
    assert result.return_value == 0, result.output
    told = json.loads((output / "plan.json").read_text())
    assert told["met"] and told["plan"]["workers"] == {"cpu": 2}
    assert told["plan"]["efficiency"] >= 0.95
    assert (output / "plan.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "job.yaml").write_text(JOB)
    job = load_job(tmp_path / "job.yaml", [f"@{keys}"])
    assert job.teachers[0].initial_replicas == 2
    assert job.teachers[0].batch_size == told["plan"]["batch_size"]
    assert job.student.high_watermark == told["plan"]["high_watermark"]
    assert job.student.low_watermark == told["plan"]["low_watermark"]


def test_a_target_that_is_out_of_reach_fails_and_names_the_nearest(run: Path) -> None:
    result = called(run, "--deadline", "15s")
    assert result.return_value == 1
    assert "no plan meets the target (done within 15s); the nearest: " in result.output
    result = called(run, "--most", "cpu=1")
    assert result.return_value == 1
    assert "the nearest: 1 on cpu, batch size 64" in result.output


def test_a_budget_buys_the_fastest_run(run: Path) -> None:
    few = json.loads(called(run, "--budget", 0.011, "--json").output)
    assert few["plan"]["worker_s"] <= 0.011 * 3600
    assert few["met"]


def test_one_batch_size_is_too_little_and_what_to_run_is_said(tmp_path: Path) -> None:
    run = folder(tmp_path / "run", rows((32,), 0.01, 0.001))
    words = said(run)
    assert "passes of 32 rows alone (cpu)" in words
    assert "edldist run JOB.yaml --set teachers.0.batch_size=8 --output OTHER" in words
    assert called(run, "--batch-size", 32).return_value == 0


def test_two_runs_are_planned_from_together(tmp_path: Path) -> None:
    one = folder(tmp_path / "one", rows((32,), 0.01, 0.001))
    two = folder(tmp_path / "two", rows((8,), 0.01, 0.001), own_s=0.02)
    told = json.loads(called(one, two, "--json").output)
    assert told["student"]["folder"] == str(two)
    assert told["workers"]["cpu"]["sizes"] == [8, 32]
    assert len(told["checks"]) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--efficiency", "0"], "range"),
        (["--efficiency", "1.5"], "range"),
        (["--efficiency", "nan"], "no number"),
        (["--budget", "-1"], "range"),
        (["--budget", "inf"], "range"),
        (["--budget", "nan"], "no number"),
        (["--deadline", "soon"], "'soon' is no time above 0"),
        (["--deadline", "0s"], "'0s' is no time above 0"),
        (["--deadline", "9999999999h"], "is no time above 0"),
        (["--deadline", "2h", "--budget", "1"], "--deadline and --budget are given"),
        (["--most", "cpu"], "write TYPE=N"),
        (["--most", "=4"], "write TYPE=N"),
        (["--most", "cpu=99999999"], "write TYPE=N"),
        (["--most", "H100=4"], "--most H100=4: no row is of such a device; there are rows of cpu"),
        (["--most", "cpu=0"], "no workers at all"),
        (["--batch-size", "0"], "range"),
        (["--samples", "0"], "range"),
        (["--teacher", "other"], "--teacher other: "),
    ],
)
def test_wrong_options_are_refused(run: Path, words: list[str], says: str) -> None:
    assert says in said(run, *words)


def test_folders_that_hold_something_else_are_refused(run: Path, tmp_path: Path) -> None:
    assert "no such folder" in said(tmp_path / "none")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "there is no stages.jsonl" in said(empty)
    (empty / "stages.jsonl").write_text('{"foreign": 1}\nhalf a li')
    words = said(empty)
    assert "no stage row can be read" in words and "line 1: " in words
    (run / "events.jsonl").unlink()
    assert "the run says too little of its student" in said(run)


def test_damaged_lines_are_left_out_and_said(run: Path) -> None:
    with (run / "stages.jsonl").open("ab") as stream:
        stream.write(b'{"t": 1, "wor')
    (run / "job.yaml").write_text("{{{")
    (run / "result.json").write_text("{")
    result = called(run)
    assert result.return_value == 0, result.output
    assert "stages.jsonl: 1 lines are no stage rows" in result.stderr


def test_rows_of_several_teachers_want_to_be_told_apart(run: Path, tmp_path: Path) -> None:
    with (run / "stages.jsonl").open("ab") as stream:
        stream.write(b"\n".join(rows((8, 32), 0.01, 0.001, group="other")) + b"\n")
    assert "rows of several teachers (other, teacher): say which with --teacher" in said(run)
    assert called(run, "--teacher", "other").return_value == 0


def test_older_rows_count_too(run: Path) -> None:
    shutil.copy(run / "stages.jsonl", run / "stages.old.jsonl")
    assert len(read_logs(run).rows) == 160


def test_a_place_that_cannot_be_written_is_said(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = called(run, "--output", tmp_path / "file" / "plan")
    assert "cannot write to" in str(result.exception)
    result = called(run, "--write", tmp_path / "none" / "plan.yaml")
    assert "cannot write" in str(result.exception)
