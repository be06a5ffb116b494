"""The benchmarks' own machinery: figures and budgets, rows, the table, the files, and what is refused."""

from __future__ import annotations

import importlib
import json
import math
import random
import statistics
import subprocess
import sys
import types
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from edldist_benchmarks import __main__ as runner
from edldist_benchmarks import catalog, figures
from edldist_benchmarks.catalog import ROWS, Outcome, Row, UnknownRowError, select
from edldist_benchmarks.counters import _first_number
from edldist_benchmarks.figures import (
    Budget,
    Curve,
    Figure,
    NotMeasuredError,
    Point,
    Result,
    Settings,
    interleave,
    rate,
)
from edldist_benchmarks.interval import CONFIDENCE, median_interval
from edldist_benchmarks.killed import full_rate_after, longest_gap
from edldist_benchmarks.plots import draw_curves
from edldist_benchmarks.report import budget_words, markdown_report, number, print_report
from edldist_benchmarks.student import Book
from edldist_launch.plan.commands import own_command

CURVE = Curve("speed", "Speed", "workers", "samples/s", [Point(1, 10, 10), Point(2, 19, 20)])


# --- figures -----------------------------------------------------------------------------------------


def test_a_figure_is_the_median_of_its_runs_beside_the_median_of_its_limit():
    figure = Figure.median_of("x", "samples/s", [70, 90, 80], [100, 300, 100], "echo", Budget(at_least=0.8))
    assert (figure.value, figure.limit, figure.ratio, figure.met) == (80, 100, 0.8, True)
    assert figure.document()["runs"] == {"value": [70, 90, 80], "limit": [100, 300, 100]}


@pytest.mark.parametrize(
    ("budget", "value", "met"),
    [
        (Budget(at_least=0.8), 79, False),
        (Budget(at_most=1.2), 120, True),
        (Budget(at_most=1.2), 121, False),
        (Budget(at_most=5, of="value"), 5, True),
        (Budget(at_most=5, of="value"), 5.1, False),
        (Budget(at_least=3, of="value"), 2.9, False),
    ],
)
def test_a_budget_bounds_the_ratio_or_the_figure_itself(budget: Budget, value: float, met: bool):
    assert Figure("x", value, "s", 100, budget=budget).met is met


@pytest.mark.parametrize(
    ("ratios", "verdict"),
    [
        ([0.99, 0.985, 1.0, 0.98, 0.99, 0.995], "yes"),
        ([0.97, 0.96, 0.979, 0.9, 0.97, 0.95], "NO"),
        ([0.99, 0.97, 1.0, 0.98, 0.99, 0.995], "open"),
        ([0.99] * 5, "open"),  # too few to be sure of anything
        ([0.5, *[0.99] * 7, 1.5], "yes"),  # one of nine on either side decides nothing
    ],
)
def test_paired_runs_meet_a_budget_if_their_interval_does(ratios: list[float], verdict: str):
    limits = [100.0 + turn for turn in range(len(ratios))]  # the machine grows faster: of both alike
    values = [ratio * limit for ratio, limit in zip(ratios, limits, strict=True)]
    figure = Figure.paired("x", "samples/s", values, limits, "plain", Budget(at_least=0.98))
    assert figure.ratio == pytest.approx(sorted(ratios)[len(ratios) // 2], abs=0.01)
    assert figure.verdict == verdict
    assert figure.met is {"yes": True, "NO": False, "open": None}[verdict]
    assert Figure.paired("x", "samples/s", values, limits, "plain").verdict == ""


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=25))
def test_an_interval_lies_between_two_of_the_values_and_about_their_median(values: list[float]):
    low, high, confidence = median_interval(values)
    assert low in values and high in values and low <= statistics.median(values) <= high
    assert (confidence >= CONFIDENCE) == (len(values) >= 6)


def test_an_interval_holds_the_true_median_as_often_as_it_says():
    rng = random.Random(5)
    for count in (6, 9, 15):
        intervals = [median_interval([rng.expovariate(1.0) for _ in range(count)]) for _ in range(2_000)]
        held = sum(low <= math.log(2) <= high for low, high, _ in intervals) / len(intervals)
        assert held == pytest.approx(intervals[0].confidence, abs=0.015)


def test_without_a_limit_there_is_no_ratio_and_no_ratio_budget_is_met():
    figure = Figure("x", 3, "s", budget=Budget(at_least=0.1))
    assert (figure.ratio, figure.met) == (None, False)
    assert Figure("x", 3, "s").met is None
    assert Figure("x", 3, "s", 0.0).ratio is None


def test_measurements_take_turns_and_every_other_turn_is_reversed():
    order: list[str] = []
    runs = interleave(3, a=lambda: order.append("a") or 1.0, b=lambda: order.append("b") or 2.0)
    assert "".join(order) == "abbaab"
    assert runs == {"a": [1.0] * 3, "b": [2.0] * 3}


def test_a_rate_counts_whole_steps_after_the_warm_up(monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    steps = 0

    def step() -> None:
        nonlocal now, steps
        steps += 1
        now += 3.0 if steps <= 2 else 0.5  # slow while it warms up

    monkeypatch.setattr(figures.time, "perf_counter", lambda: now)
    assert rate(step, 20.0) == 2.0


# --- rows --------------------------------------------------------------------------------------------


def test_rows_are_run_in_the_order_of_the_catalogue():
    assert [row.name for row in select(["training", "small"])] == ["small", "training"]
    assert select([]) == list(ROWS)
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_an_unknown_row_is_refused_with_those_there_are():
    with pytest.raises(UnknownRowError) as failure:
        select(["small", "smal"])
    assert "'smal'" in str(failure.value) and "'small'" not in str(failure.value)
    assert all(row.name in str(failure.value) for row in ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row_has_its_function(row: Row):
    assert callable(getattr(importlib.import_module(f"edldist_benchmarks.{row.module}"), row.function))


def fake_rows(monkeypatch: pytest.MonkeyPatch, **rows: object) -> list[Row]:
    """Rows of a module that exists in this test only."""
    module = types.ModuleType("edldist_benchmarks.fakes")
    for name, behaviour in rows.items():
        setattr(module, name, behaviour)
    monkeypatch.setitem(sys.modules, "edldist_benchmarks.fakes", module)
    made = [Row(name, "fakes", name, f"the row {name}") for name in rows]
    monkeypatch.setattr(catalog, "ROWS", tuple(made))
    return made


def raising(error: BaseException):
    def measure(settings: Settings) -> Result:
        raise error

    return measure


def good(settings: Settings) -> Result:
    return Result(
        [Figure("speed", settings.repeats, "m/s", 10, "light", Budget(at_least=0.9))], [CURVE], ["hm"]
    )


def run_rows(rows: list[Row], folder: Path) -> tuple[int, dict]:
    code = runner._Bench(Settings(4, 0.1), folder).run(rows)
    return code, json.loads((folder / "bench.json").read_text())


def test_a_row_that_fails_loses_no_other_and_ends_with_1(monkeypatch, tmp_path, capsys):
    rows = fake_rows(monkeypatch, bad=raising(OSError("no disk")), good=good)
    code, document = run_rows(rows, tmp_path)
    assert code == 1
    assert [(row["name"], row["status"]) for row in document["rows"]] == [
        ("bad", "failed"),
        ("good", "measured"),
    ]
    assert document["rows"][0]["reason"] == "OSError: no disk"
    assert document["rows"][1]["figures"][0]["ratio"] == 0.4
    assert document["rows"][1]["figures"][0]["met"] is False
    shown = capsys.readouterr()
    assert "bad: FAILED: OSError: no disk" in shown.out and "Traceback" in shown.err


def test_a_row_that_cannot_be_measured_here_is_no_failure(monkeypatch, tmp_path, capsys):
    rows = fake_rows(monkeypatch, gpu=raising(NotMeasuredError("no device")), good=good)
    code, document = run_rows(rows, tmp_path)
    assert code == 0
    assert [row["status"] for row in document["rows"]] == ["skipped", "measured"]
    assert "gpu: not measured: no device" in capsys.readouterr().out


def test_an_interrupt_keeps_what_was_measured(monkeypatch, tmp_path, capsys):
    rows = fake_rows(monkeypatch, good=good, stopped=raising(KeyboardInterrupt()), never=good)
    code, document = run_rows(rows, tmp_path)
    assert code == 130
    assert [row["name"] for row in document["rows"]] == ["good"]
    assert "light" in capsys.readouterr().out


def test_the_document_names_the_machine_and_every_run(monkeypatch, tmp_path, capsys):
    _, document = run_rows(fake_rows(monkeypatch, good=good), tmp_path)
    machine = document["machine"]
    assert machine["cpu"] and machine["kernel"] and machine["memory_bytes"] > 0 and machine["cores"] > 0
    assert machine["python"] == sys.version.split()[0]
    assert machine["packages"]["torch"] and machine["packages"]["pyzmq"]
    assert document["settings"] == {"repeats": 4, "seconds": 0.1}
    assert document["rows"][0]["curves"][0]["points"][1] == {"x": 2, "value": 19, "ideal": 20}
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


# --- what people see -----------------------------------------------------------------------------------


def test_the_table_says_what_was_met_and_what_was_not():
    console = Console(width=140, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    row = Row("loop", "fakes", "f", "a loop")
    beyond = Row("cost", "fakes", "f", "a cost", budgeted=False)
    result = Result(
        [
            Figure("fast", 1234.6, "samples/s", 1300, "plain", Budget(at_least=0.9)),
            Figure("slow", 2.25, "s", budget=Budget(at_most=1, of="value")),
            Figure.paired(
                "level", "samples/s", [95, 105, 100] * 2, [100] * 6, "plain", Budget(at_least=0.99)
            ),
        ],
        notes=["it rained"],
    )
    outcomes = [
        Outcome(row, "measured", 1, result),
        Outcome(beyond, "measured", 1, Result([Figure("m", 3, "MiB")])),
    ]
    print_report(console, outcomes, "a machine")
    console.file.close()
    lines = [" ".join(line.split()) for line in console.export_text().splitlines()]
    assert "loop fast 1,235 samples/s 1,300 plain 0.95 >= 0.9 yes" in lines
    assert "slow 2.25 s <= 1 s NO" in lines
    assert "level 100 samples/s 100 plain 1.000 (0.950 to 1.050) >= 0.99 open" in lines
    assert lines.index("beyond the budgets") < lines.index("cost m 3 MiB") < lines.index("loop: it rained")


def test_the_markdown_holds_the_same_table_and_the_pictures():
    result = Result([Figure("fast", 90, "m/s", 100, "light", Budget(at_least=0.95))], [CURVE], ["it rained"])
    lost = Outcome(Row("lost", "fakes", "f", "lost"), "failed", 1, reason="OSError: gone")
    text = markdown_report(
        [Outcome(Row("loop", "fakes", "f", "a loop"), "measured", 1, result), lost], "a machine"
    )
    assert "| `loop` | fast | 90 m/s | 100 light | 0.90 | >= 0.95 | NO |" in text.splitlines()
    assert "![Speed](speed.png)" in text
    assert text.endswith("- loop: it rained\n- lost: FAILED: OSError: gone\n")
    assert "beyond" not in text.lower()


def test_numbers_keep_three_digits():
    assert [number(value) for value in (0.03456, 1.5, 2.0, 99.96, 123456.7)] == [
        "0.0346",
        "1.5",
        "2",
        "100",
        "123,457",
    ]
    assert budget_words(Budget(at_least=1, at_most=2, of="value"), "s") == ">= 1 s and <= 2 s"


def test_without_matplotlib_there_are_figures_and_a_hint(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert draw_curves([CURVE], tmp_path) is None
    code, _ = run_rows(fake_rows(monkeypatch, good=good), tmp_path)
    assert code == 0
    assert "pip install 'edldist[plot]', in a clone '.[plot]'" in capsys.readouterr().out


# --- the command -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("nosuch",), "no such row: 'nosuch'; there are large-tcp"),
        (("--repeats", "0"), "0 is not in the range"),
        (("--repeats", "many"), "'many' is not a valid integer"),
        (("--seconds", "0"), "not in the range"),
        (("--seconds", "nan"), "nan is no length of time"),
        (("--seconds", "soon"), "'soon' is not a valid float"),
        (("--output", __file__), "is a file"),
        (("--output", "/proc/nowhere"), "/proc/nowhere: No such file or directory"),
        (("--repeat", "2"), "No such option"),
    ],
)
def test_wrong_usage_is_refused_with_its_value(args: tuple[str, ...], says: str):
    with pytest.raises(click.UsageError) as failure:
        runner.bench.main(list(args), standalone_mode=False)
    assert says in failure.value.format_message()
    assert failure.value.exit_code == 2


def test_edldist_bench_is_the_benchmarks_and_passes_their_exit_code(tmp_path):
    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = own_command("bench", *args)
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=150, check=False)

    (tmp_path / "benchmarks.py").write_text("raise SystemExit('the wrong benchmarks')")
    listed = run("--list")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [row.name for row in ROWS]
    assert "--repeats" in run("--help").stdout
    wrong = run("nosuch", "--seconds", "1")
    assert wrong.returncode == 2 and "no such row: 'nosuch'" in wrong.stderr


def test_listing_rows_imports_no_torch():
    script = (
        "import sys\nfrom edldist_benchmarks.__main__ import bench\n"
        "bench.main(['--list'], standalone_mode=False)\nsys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, check=False, timeout=150
    )
    assert done.returncode == 0


# --- small parts of rows -----------------------------------------------------------------------------------


def test_the_longest_gap_is_between_neighbours():
    assert longest_gap([1.0, 1.5, 4.0, 4.25]) == 2.5


def test_the_full_rate_is_back_when_a_window_holds_it():
    steady = [index * 0.1 for index in range(1, 60)]
    assert full_rate_after(steady, 0.0, 10.0) == 0.0
    stalled = [0.1, 0.2, *(3.0 + index * 0.1 for index in range(30))]
    assert full_rate_after(stalled, 0.25, 10.0) == pytest.approx(2.75)
    assert full_rate_after([1.0, 2.0, 3.0], 0.0, 10.0) == float("inf")


def test_a_book_of_progress_is_read_up_to_its_last_whole_line(tmp_path):
    book = Book(tmp_path / "book")
    assert book.read() == [] and not book.served_by(1)
    book.path.write_text("[1.0, 10, 1, 500]\n[2.0, 30, 1, 900]\n[4.0, 90, 2, 4500, 7]\n[5.0, 10")
    assert book.rate(1.5, 4.5) == pytest.approx(80 / 3)
    assert book.bytes_each(1.5, 4.5) == 50 and book.bytes_each(2.0, 4.0) == 60
    assert book.served_by(2) and not book.served_by(1)
    with pytest.raises(ValueError, match="no batch was noted"):
        book.rate(4.1, 9.0)


def test_counts_are_found_in_what_perf_prints():
    pattern = r"^(\d+),,raw_syscalls:sys_enter"
    assert _first_number("# started\n4711,,raw_syscalls:sys_enter,100,100.00,,\n", pattern) == 4711
    assert _first_number("<not counted>,,raw_syscalls:sys_enter,0,0.00,,\n", pattern) is None
