"""The job that ``edldist label`` makes of a job file, and what it refuses before anything starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edldist import labeller
from edldist.config import JobConfig, dump_job, load_job
from edldist.errors import ConfigError
from edldist.labeller import SCRIPT, VARIABLE, labels_ahead, script_file
from edldist_launch.cli import cli
from edldist_launch.kubernetes.resolve import plan_in_image
from edldist_launch.plan.labelling import load_label_job
from edldist_launch.plan.plan import Plan
from edldist_launch.record.earlier import differences

LABELS = """\
name: toy
teachers:
  - {name: big, model: "a:b"}
  - {name: small, model: "a:c", version: v2}
label: {data: "m:f", inputs: x, nproc_per_node: 2, max_restarts: 1, env: {A: b}}
store: {path: kept}
"""
TRAINS = LABELS + "student: {script: s.py, args: [--lr, 1]}\n"


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(LABELS)
    return path


def changed(path: Path, old: str, new: str) -> Path:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


@pytest.mark.parametrize("text", [LABELS, TRAINS])
def test_a_labeller_takes_the_students_place(job_file: Path, text: str) -> None:
    job_file.write_text(text)
    job = load_label_job(job_file, [])
    assert labels_ahead(job)
    student = job.student
    assert student.script == SCRIPT, "wherever edldist is installed that runs it"
    assert student.args == (["--lr", "1"] if text == TRAINS else []), "a preparation may ask for them"
    assert (student.nproc_per_node, student.max_restarts, student.env) == (2, 1, {"A": "b"})
    assert job.name == "toy-labels", "its folder is not that of the job that trains"


def test_its_ranks_find_the_section_and_those_that_train_do_not(job_file: Path) -> None:
    job_file.write_text(TRAINS)
    job = load_label_job(job_file, ["label.batch_size=7"])
    told = Plan(job, Path(), Path()).student_environment("tcp://127.0.0.1:1")[VARIABLE]
    assert json.loads(told)["batch_size"] == 7
    trains = Plan(load_job(job_file), Path(), Path())
    assert VARIABLE not in trains.student_environment("tcp://127.0.0.1:1")


def test_labels_ahead_are_those_that_are_asked_for_whatever_else_a_job_allows(job_file: Path) -> None:
    job_file.write_text(TRAINS)
    degrade = "student.degrade=[{codec: int8}]"
    job = load_label_job(job_file, [degrade])
    assert not job.student.degrade
    assert "EDLDIST_DEGRADE" not in Plan(job, Path(), Path()).student_environment("tcp://127.0.0.1:1")
    trains = Plan(load_job(job_file, [degrade]), Path(), Path())
    assert trains.student_environment("tcp://127.0.0.1:1")["EDLDIST_DEGRADE"] == "codec=int8"


def test_the_resolved_job_is_the_same_job_when_it_is_read_again(job_file: Path) -> None:
    job = load_label_job(job_file, [])
    job_file.write_text(dump_job(job))
    assert load_job(job_file) == job, "as a launcher in the background reads it"
    assert load_label_job(job_file, []) == job


def test_labels_are_made_though_a_job_trains_from_the_store_alone(job_file: Path) -> None:
    changed(job_file, "path: kept", "path: kept, only: true")
    job = load_label_job(job_file, [])
    assert job.store is not None and not job.store.only


def test_the_option_names_the_store(job_file: Path) -> None:
    job = load_label_job(job_file, ["store.path=other"], store='/a "b": c')
    assert job.store is not None and job.store.path == '/a "b": c'
    changed(job_file, "store: {path: kept}\n", "")
    job = load_label_job(job_file, [], store="here")
    assert job.store is not None and job.store.path == str(Path.cwd() / "here")
    job = load_label_job(job_file, [], store="s3://b/labels")
    assert job.store is not None and job.store.path == "s3://b/labels"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('label: {data: "m:f"', 'prepare: {script: p.py}\nlabel_: {data: "m:f"', "label_: unknown key"),
        ("store: {path: kept}\n", "", "store: missing; it says where labels go.*--store labels"),
        ("path: kept", "path: kept, read_only: true", "store.read_only: true, and labels are to be written"),
        ("inputs: x", "ids: index", "label.ids: index, and nobody knows of what: say in store.data"),
        ("name: toy", f"name: {'n' * 95}", "name: .* is too long"),
    ],
)
def test_what_cannot_label_is_refused(job_file: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_label_job(changed(job_file, old, new), [])


def test_a_file_without_the_section_is_told_what_it_lacks(job_file: Path) -> None:
    job_file.write_text(TRAINS.replace("label:", "#label:"))
    with pytest.raises(ConfigError, match=r"job.yaml: label: missing; .*data: package.module:factory"):
        load_label_job(job_file, [])


def test_a_file_that_only_labels_is_no_job_that_trains(job_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"student: missing; .*edldist label .*job\.yaml"):
        load_job(job_file)


def test_how_fast_it_labels_decides_nothing(job_file: Path) -> None:
    job = load_label_job(job_file, [])
    faster = ["label.nproc_per_node=4", "label.batch_size=9", "label.shard_rows=5", "label.num_workers=1"]
    assert differences(job, load_label_job(job_file, faster)) == []
    assert differences(job, load_label_job(job_file, ["label.inputs=y"])) == ["label.inputs: x -> y"]


def test_what_is_labelled_ahead_decides_nothing_of_what_a_job_learns(job_file: Path) -> None:
    job_file.write_text(TRAINS)
    assert differences(load_job(job_file), load_job(job_file, ["label.data=o:p"])) == []


def label(*args: str) -> Result:
    return CliRunner().invoke(cli, ["label", *args], standalone_mode=False)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "name the JOB file"),
        (("a.yaml", "b.yaml"), "one JOB file, and not 2: a.yaml, b.yaml"),
        (("a.yaml", "--fresh", "--extend"), "--fresh begins anew and --extend goes on"),
        (("--merge", "t"), "name the stores whose labels it shall take"),
        (("--merge", "t", "--verify", "s", "x"), "--verify looks at a store and --merge changes one"),
        (("--verify", "s", "a.yaml", "b.yaml"), "one JOB file, and not 2"),
        (("nowhere.yaml",), "no such job file: nowhere.yaml"),
        (("nowhere.yaml", "--dry-run"), "no such job file: nowhere.yaml"),
        (("nowhere.yaml", "--detach"), "no such job file: nowhere.yaml"),
    ],
)
def test_a_wrong_command_line_says_what_to_give(args: tuple[str, ...], said: str) -> None:
    result = label(*args)
    assert result.exception is not None
    assert said in str(getattr(result.exception, "message", result.exception))


def test_a_dry_run_shows_the_job_and_starts_nothing(job_file: Path, tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("f = list\n")
    text = (
        job_file.read_text().replace('model: "a:b"', 'model: "m:f"').replace('model: "a:c"', 'model: "m:f"')
    )
    job_file.write_text(text)
    result = label(str(job_file), "--dry-run", "--output", str(tmp_path / "out"))
    assert result.exception is None, result.exception
    assert "# student ranks: 2 (1 x 2)" in result.output
    shown = tmp_path / "shown.yaml"
    shown.write_text(result.output)
    assert labels_ahead(load_job(shown))
    assert not (tmp_path / "out").exists()


def test_clusters_take_it_as_any_other_job(
    job_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = tmp_path / "labels.yaml"
    shown.write_text(dump_job(load_label_job(job_file, [])))
    for engine in ("slurm", "k8s"):
        told = CliRunner().invoke(cli, ["render", engine, "job.yaml", "--labels"], standalone_mode=False)
        again = CliRunner().invoke(cli, ["render", engine, "labels.yaml"], standalone_mode=False)
        assert told.exception is None and SCRIPT in told.output and VARIABLE in told.output
        assert again.exception is None and "toy-labels" in again.output and SCRIPT in again.output
    refused = CliRunner().invoke(cli, ["submit", "k8s", "job.yaml", "--set", "label=null", "--labels"])
    assert "label: missing" in str(refused.exception)
    assert plan_in_image(job_file, load=load_label_job).student_environment("tcp://c:1")["EDLDIST_STORE"] == (
        "/output/kept"
    )


def test_a_student_node_runs_the_labeller_of_its_own_installation() -> None:
    file = Path(script_file(SCRIPT))
    assert file.is_file() and file.parent == Path(labeller.__file__).parent
    assert script_file("train.py") == "train.py"


def test_the_job_that_is_shown_is_a_job(job_file: Path) -> None:
    assert isinstance(load_label_job(job_file, []), JobConfig)
