"""What sweeps share: results that are kept by what made them, figures, gates, and jobs that fail."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import edldist
from edldist.sampling.choice import position_of
from edldist.sampling.sampled import SampledPosition
from examples.common import job as jobs
from examples.common import sweep as sweeps
from examples.common.errors import SweepError
from examples.common.figures import Figure, differences, table
from examples.common.kept import fingerprint, kept_weights, sources_of
from examples.common.rows import Rows
from examples.common.sweep import Metrics, Sweep, conclude, options

JOB = """
name: toy
prepare: {script: prepare.py, args: [--size, 3]}
teachers: [{name: teacher, model: "models:teacher"}]
student: {script: student.py, args: [--steps, 10]}
"""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "job.yaml").write_text(JOB)
    for name in ("student", "prepare", "models", "sweep"):
        (folder / f"{name}.py").write_text(f"# {name}")
    return folder


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, dict[str, Any]]]:
    """The folder and settings of each job that would have been run."""
    found: list[tuple[Path, dict[str, Any]]] = []

    def run(job: Path, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
        assert job.is_file()
        found.append((folder, settings))
        return {"auc": 0.5 + len(found), "note": "text"}

    monkeypatch.setattr(sweeps, "run_job", run)
    return found


def test_a_job_is_run_once_and_again_only_for_other_settings(
    example: Path, tmp_path: Path, ran: list
) -> None:
    sweep = Sweep(example, tmp_path / "out")
    known = {"settings": {"teachers.0.codec": "int8"}, "student": ["--seed", 0], "prepare": ["--size", 4]}
    first = sweep.job("routed-0", **known)
    again = Sweep(example, tmp_path / "out").job("routed-0", **known)
    assert len(ran) == 1 and first["auc"] == again["auc"] == 1.5
    folder, settings = ran[0]
    assert settings == {
        "teachers.0.codec": "int8",
        "student.args": ["--steps", "10", "--seed", "0"],
        "prepare.args": ["--size", "3", "--size", "4"],
    }
    assert (
        first.origin == folder and folder.parent == tmp_path / "out" and folder.name.startswith("routed-0-")
    )
    for changed in (
        {"settings": {"teachers.0.codec": "dense"}},
        {"student": ["--seed", 1]},
        {"prepare": ["--size", 5]},
    ):
        sweep.job("routed-0", **(known | changed))
    assert len({folder for folder, _ in ran}) == len(ran) == 4


def test_a_job_is_run_again_when_the_examples_files_change_but_not_for_its_sweep(
    example: Path, tmp_path: Path, ran: list
) -> None:
    Sweep(example, tmp_path).job("a")
    (example / "sweep.py").write_text("# another table")
    Sweep(example, tmp_path).job("a")
    assert len(ran) == 1
    (example / "models.py").write_text("# another model")
    Sweep(example, tmp_path).job("a")
    (example / "job.yaml").write_text(JOB.replace("10", "20"))
    Sweep(example, tmp_path).job("a")
    assert len(ran) == 3
    assert {path.name for path in sources_of(example)} == {
        "job.yaml",
        "models.py",
        "prepare.py",
        "student.py",
    }


def test_a_measurement_is_kept_with_what_made_it(example: Path, tmp_path: Path) -> None:
    sweep = Sweep(example, tmp_path / "out")
    made = sweep.measure("rate-0.5", {"seed": 3}, lambda: {"auc": 0.7})
    assert made["auc"] == sweep.measure("rate-0.5", {"seed": 3}, lambda: pytest.fail("made again"))["auc"]
    (kept,) = (tmp_path / "out").iterdir()
    assert kept.name.startswith("rate-0.5-") and kept.name.endswith(".json")
    found = json.loads(kept.read_text())
    assert found["settings"] == {"seed": 3} and found["metrics"] == {"auc": 0.7} and found["seconds"] >= 0
    assert sweep.measure("rate-0.5", {"seed": 4}, lambda: {"auc": 0.8})["auc"] == 0.8


def test_what_failed_is_not_kept(example: Path, tmp_path: Path) -> None:
    sweep = Sweep(example, tmp_path / "out")

    def fail() -> dict[str, float]:
        raise SweepError("no")

    with pytest.raises(SweepError):
        sweep.measure("a", {}, fail)
    assert sweep.measure("a", {}, lambda: {"auc": 1})["auc"] == 1.0


@pytest.mark.parametrize("value", [math.nan, math.inf, "0.7", None, True])
def test_a_metric_that_is_no_finite_number_is_an_error_with_its_place(value: object) -> None:
    with pytest.raises(SweepError, match=f"out/a reports auc={value!r}, which is not a finite number"):
        Metrics({"auc": value}, Path("out/a"))["auc"]


def test_a_metric_that_was_never_reported_is_an_error_that_names_those_that_were() -> None:
    with pytest.raises(SweepError, match="out/a reports no 'auc'; it reports 'loss', 'step'"):
        Metrics({"loss": 1.0, "step": 2}, Path("out/a"))["auc"]
    with pytest.raises(SweepError, match="it reports nothing"):
        Metrics({}, Path("out/a"))["auc"]


def test_arguments_for_a_preparation_that_there_is_not(example: Path, tmp_path: Path, ran: list) -> None:
    (example / "job.yaml").write_text(JOB.replace("prepare: {script: prepare.py, args: [--size, 3]}", ""))
    with pytest.raises(SweepError, match=r"job\.yaml has no prepare:"):
        Sweep(example, tmp_path).job("a", prepare=["--seed", 1])


def test_a_figure_is_a_mean_with_its_standard_error() -> None:
    figure = Figure.of("auc", {0: 1.0, 1: 2.0, 2: 6.0})
    assert figure.mean == 3.0 and figure.error == pytest.approx((14 / 2 / 3) ** 0.5)
    assert f"{figure:.2f}" == "3.00 ± 1.53" and f"{figure:+.1f}" == "+3.0 ± 1.5"
    assert f"{Figure.of('auc', {7: 0.25})}" == "0.250"
    assert figure.as_json()["seeds"] == [0, 1, 2]


def test_a_figure_needs_finite_values() -> None:
    with pytest.raises(SweepError, match="auc: nan with seed 4 is not finite"):
        Figure.of("auc", {3: 0.5, 4: math.nan})
    with pytest.raises(SweepError, match="auc: no seeds"):
        Figure.of("auc", {})


def test_differences_are_seed_by_seed() -> None:
    assert differences({0: 3.0, 1: 5.0}, {1: 4.0, 0: 1.0}) == {0: 2.0, 1: 1.0}
    with pytest.raises(SweepError, match=r"seeds \[0\] cannot be compared with seeds \[1\]"):
        differences({0: 1.0}, {1: 1.0})


def test_a_table_is_markdown() -> None:
    made = table(["", "AUC"], [["plain", "0.5"], ["routed", Figure.of("a", {0: 0.75})]])
    assert made.splitlines() == ["|  | AUC |", "|---|---:|", "| plain | 0.5 |", "| routed | 0.750 |"]


def test_the_verdict_is_one_line_of_json_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"gain": Figure.of("gain", {0: 1.0, 1: 2.0})}
    assert conclude("toy", "gain of 1 ± a bit", figures, {"gain >= 1": True}) == 0
    assert conclude("toy", "gain of 2", figures, {"gain >= 2": False, "gain >= 1": True}) == 1
    said = capsys.readouterr()
    passed, missed = map(json.loads, said.out.splitlines())
    assert passed == {
        "workload": "toy",
        "gate": "gain of 1 ± a bit",
        "figures": {"gain": {"mean": 1.5, "error": 0.5, "seeds": [0, 1]}},
        "passed": True,
    }
    assert not missed["passed"] and said.err == "toy: the gate is missed: not gain >= 2\n"
    with pytest.raises(SweepError, match="a gate without conditions"):
        conclude("toy", "", figures, {})


def test_the_options_are_those_of_every_sweep() -> None:
    args = options("text", Path("examples/toy")).parse_args([])
    assert args.seeds == [0, 1, 2] and args.output == Path("out/toy-sweep")
    assert options(None, Path("toy"), [4]).parse_args(["--seeds", "5", "6"]).seeds == [5, 6]


def stand_in(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Have this run in place of a job; ``out`` is the job's folder, ``argv`` its command line."""
    begin = (
        "import json, sys, pathlib; argv = sys.argv[1:]; "
        "out = pathlib.Path(argv[argv.index('--output') + 1]); out.mkdir(parents=True)\n"
    )
    monkeypatch.setattr(
        jobs, "tied_command", lambda command, parent: [sys.executable, "-c", begin + code, *command]
    )


def test_a_job_gets_its_settings_and_gives_its_metrics(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = "{'status': 'completed', 'metrics': {'argv': argv}}"
    stand_in(monkeypatch, f"(out / 'result.json').write_text(json.dumps({result}))")
    settings = {"teachers.0.codec": "topk:3", "student.args": ["--seed", "0"]}
    argv = jobs.run_job(example / "job.yaml", tmp_path / "out", settings)["argv"]
    assert argv[argv.index("run") + 1] == str(example / "job.yaml")
    assert argv[-4:] == ["--set", 'teachers.0.codec="topk:3"', "--set", 'student.args=["--seed", "0"]']


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("sys.exit(3)", r"exit code 3 \(without a result\)"),
        (
            "(out / 'result.json').write_text('{\"status\": \"failed\"}'); sys.exit(1)",
            r"exit code 1 \(failed\)",
        ),
        ("(out / 'result.json').write_text('{\"status\": \"interrupted\"}')", r"exit code 0 \(interrupted\)"),
    ],
)
def test_a_failed_job_names_its_folder_and_its_logs(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, said: str
) -> None:
    stand_in(monkeypatch, code)
    folder = tmp_path / "out"
    with pytest.raises(SweepError, match=f"the job in {folder} ended with {said}: .* in {folder}/logs"):
        jobs.run_job(example / "job.yaml", folder, {})


def test_weights_are_made_where_they_are_missing_damaged_or_made_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "build" / "teacher.safetensors"
    made: list[int] = []

    def make() -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        made.append(len(made))
        return {"weight": torch.full((2, 3), float(len(made))).T}, {"accuracy": 0.1 + len(made)}

    assert kept_weights(path, "a", make) == kept_weights(path, "a", make) == {"accuracy": 1.1}
    assert len(made) == 1 and load_file(path)["weight"].tolist() == [[1.0] * 2] * 3
    assert kept_weights(path, "b", make) == {"accuracy": 2.1}
    path.write_bytes(b"half a file")
    assert kept_weights(path, "b", make) == {"accuracy": 3.1}
    assert [each.name for each in path.parent.iterdir()] == ["teacher.safetensors"]


def test_a_fingerprint_is_of_settings_and_of_files_by_name_and_text(tmp_path: Path) -> None:
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("1")
    other.write_text("2")
    known = fingerprint({"a": 1, "b": [2]}, [one, other])
    assert known == fingerprint({"b": [2], "a": 1}, [other, one])
    assert known != fingerprint({"a": 1, "b": [3]}, [one, other]) != fingerprint({"a": 1, "b": [2]}, [one])
    one.write_text("2")
    other.write_text("1")
    assert known != fingerprint({"a": 1, "b": [2]}, [one, other])


def test_rows_are_taken_a_batch_at_a_time_in_the_samplers_order() -> None:
    rows = Rows({"x": torch.arange(10) * 2, "y": torch.arange(20).view(10, 2)})
    assert len(rows) == 10 and rows[3]["x"] == 6 and rows[3]["y"].tolist() == [6, 7]
    first, second = rows.loader([[3, 1], [9]])
    assert first["x"].tolist() == [6, 2] and first["y"].tolist() == [[6, 7], [2, 3]]
    assert second["x"].tolist() == [18]
    with pytest.raises(ValueError, match=r"a row for each sample; there are \{'x': 2, 'y': 3\}"):
        Rows({"x": torch.zeros(2), "y": torch.zeros(3)})


def test_a_loader_of_rows_goes_on_at_its_place() -> None:
    rows = Rows({"x": torch.arange(10)})
    sampler = edldist.ElasticSampler(10, 4, shuffle=False, rank=0, world_size=1)
    assert isinstance(position_of(rows.loader(sampler)), SampledPosition)


@pytest.mark.parametrize("given", [["-1"], ["4294967296"], ["x"], ["1.5"], ["0", "1", "0"]])
def test_seeds_that_no_job_can_have_and_those_given_twice_are_refused(
    example: Path, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        options("", example).parse_args(["--seeds", *given])
    said = capsys.readouterr().err
    assert (
        "0 is given twice" in said
        or f"{given[0]!r} is no seed: use whole numbers from 0" in said
        or (given == ["-1"] and "--seeds" in said)
    )


def test_seeds_are_taken_as_given(example: Path) -> None:
    assert options("", example).parse_args(["--seeds", "4294967295", "0"]).seeds == [4294967295, 0]
