"""The generator of docs/workloads.md, and that the page says what the record says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples import workloads
from examples.common.figures import Figure
from examples.common.sweep import conclude


def test_the_table_in_the_page_is_that_of_the_record() -> None:
    page, record = workloads.PAGE.read_text(), workloads.read_record()
    assert workloads.with_table(page, record) == page


def test_the_record_has_workloads_that_there_are_with_all_that_belongs_to_a_figure() -> None:
    known = workloads.gates(workloads.EXAMPLES)
    for name, found in workloads.read_record().items():
        assert found["gate"] == known[name], f"{name} has another gate since: run it again"
        assert {"passed", "figures", "command", "seeds", "seconds", "cpu", "cores", "revision"} < found.keys()
        assert all(figure.keys() == {"mean", "error", "seeds"} for figure in found["figures"].values())


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Examples with sweeps that are stand-ins; ``other`` is no workload."""
    examples = tmp_path / "examples"
    for name, code in {
        "good": 'GATE = (\n    "a gain "\n    "of 1"\n)\nprint("| a table |")\nsay(1.25)',
        "missed": 'GATE = "a gain of 1"\nsay(0.5)',
        "broken": 'GATE = "whatever"\nraise SystemExit("the job failed")',
        "other": "say(1)",
    }.items():
        (examples / name).mkdir(parents=True)
        (examples / name / "sweep.py").write_text(STAND_IN + code)
    page = tmp_path / "docs" / "workloads.md"
    page.parent.mkdir()
    page.write_text(f"before\n{workloads.BEGIN}\nwas here\n{workloads.END}\nafter\n")
    for name, value in {
        "ROOT": tmp_path,
        "EXAMPLES": examples,
        "RECORD": examples / "workloads.json",
        "PAGE": page,
    }.items():
        monkeypatch.setattr(workloads, name, value)
    return tmp_path


STAND_IN = """
import argparse, json, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
parser.add_argument("--output", type=pathlib.Path)
args = parser.parse_args()
def say(gain):
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "job-1.json").write_text(json.dumps({"seconds": 90}))
    (args.output / "job-2.json").write_text(json.dumps({"seconds": 50}))
    figures = {"gain": {"mean": gain, "error": 0.125, "seeds": args.seeds}}
    name = pathlib.Path(__file__).parent.name
    print(json.dumps({"workload": name, "gate": GATE, "figures": figures, "passed": gain >= 1}))
    sys.exit(0 if gain >= 1 else 1)
"""


def generate(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["workloads", *arguments, "--output", "out"])
    return workloads.main()


def test_all_sweeps_are_run_and_what_they_say_is_recorded_and_shown(
    toys: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert generate(monkeypatch) == 1, "one missed its gate, and one failed"
    record = json.loads((toys / "examples" / "workloads.json").read_text())
    assert list(record) == ["good", "missed"]
    good = record["good"]
    assert good["gate"] == "a gain of 1" and good["passed"] and not record["missed"]["passed"]
    assert good["figures"] == {"gain": {"mean": 1.25, "error": 0.125, "seeds": [0, 1]}}
    assert (good["seeds"], good["seconds"]) == ([0, 1], 140)
    assert good["command"] == "python examples/good/sweep.py" and good["revision"] and good["cpu"]
    page = (toys / "docs" / "workloads.md").read_text()
    rows = page.splitlines()[2:-2]
    assert page.startswith("before\n") and page.endswith("\nafter\n") and "was here" not in page
    assert rows[0] == "| workload | gate | measured | holds | of | command |"
    assert "| gain: 1.25 ± 0.12 | yes | seeds 0, 1, 2 min, `" in rows[2]
    assert "| **no** |" in rows[3] and len(rows) == 4
    assert "broken: the sweep failed; its former figures stay" in capfd.readouterr().err


def test_a_workload_that_is_run_alone_leaves_the_others_as_they_were(
    toys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert generate(monkeypatch, "missed") == 1
    assert generate(monkeypatch, "good", "--seeds", "3", "4", "5") == 0
    record = workloads.read_record()
    assert record["good"]["seeds"] == [3, 4, 5] and record["missed"]["seeds"] == [0, 1]
    assert record["good"]["command"] == "python examples/good/sweep.py --seeds 3 4 5"
    page = (toys / "docs" / "workloads.md").read_text()
    assert "seeds 3 to 5, " in page and "seeds 0, 1, " in page
    (toys / "docs" / "workloads.md").write_text(f"{workloads.BEGIN}{workloads.END}")
    assert generate(monkeypatch, "--table") == 0
    assert "seeds 3 to 5, " in (toys / "docs" / "workloads.md").read_text()
    before = dict(record)
    assert generate(monkeypatch, "broken") == 1
    assert workloads.read_record() == before


def test_a_workload_that_is_gone_leaves_the_record(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert generate(monkeypatch, "missed", "good") == 1
    (toys / "examples" / "missed" / "sweep.py").unlink()
    assert generate(monkeypatch, "good") == 0
    assert list(workloads.read_record()) == ["good"]


def test_a_workload_that_is_not_there_is_refused_with_those_that_are(
    toys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        generate(monkeypatch, "other")
    assert caught.value.code == 2
    assert "no workload other; there are broken, good, missed" in capsys.readouterr().err
    assert generate(monkeypatch, "--list") == 0
    assert "good: a gain of 1" in capsys.readouterr().out


def test_the_last_line_counts_and_has_to_be_the_verdict_of_that_workload(
    capsys: pytest.CaptureFixture[str],
) -> None:
    conclude("toy", "gate", {"gain": Figure.of("gain", {0: 1.0})}, {"gain": True})
    said = capsys.readouterr().out
    found: Any = workloads.last_verdict(f"| a table |\n{said}", "toy")
    assert found["passed"] and found["gate"] == "gate" and "workload" not in found
    for other in (f"{said}behind", "", "[]", said.replace('"passed"', '"p"')):
        assert workloads.last_verdict(other, "toy") is None
    assert workloads.last_verdict(said, "another") is None


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no <!-- table: begin --> \.\.\. <!-- table: end -->"):
        workloads.with_table("nothing", {})


def test_a_revision_is_marked_where_the_code_differs(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(variable, raising=False)
    assert workloads.revision() == "unknown"
    me = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for arguments in (["init", "-q"], ["add", "."], [*me, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", *arguments], cwd=toys, check=True, timeout=20)
    clean = workloads.revision()
    assert len(clean) == 12
    (toys / "examples" / "workloads.json").write_text("{}")
    assert workloads.revision() == clean
    (toys / "examples" / "good" / "sweep.py").write_text("pass")
    assert workloads.revision() == f"{clean} with changes"
