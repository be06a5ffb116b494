"""The job file: what loads, what is refused, and in which words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from edldist.bounds import node_range
from edldist.config import (
    CheckpointConfig,
    CoordinatorConfig,
    JobConfig,
    ReplicaRange,
    StudentConfig,
    TeacherConfig,
    dump_job,
    job_schema,
    load_job,
)
from edldist.errors import ConfigError
from tests.unit.jobs import FULL, MINIMAL, UNKNOWN_KEYS, WRONG_VALUES


def write(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str = MINIMAL, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_job(write(folder, text), overrides)
    return str(caught.value)


def test_defaults_are_those_of_the_design(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, MINIMAL))
    teacher = job.teachers[0]
    assert (teacher.name, teacher.replicas, teacher.device, teacher.batch_size) == ("teacher", 1, "auto", 64)
    assert (teacher.codec, teacher.weights, teacher.allow_nonfinite, teacher.env) == (
        "dense",
        None,
        False,
        {},
    )
    assert (job.student.nnodes, job.student.nproc_per_node, job.student.max_restarts) == ("1", 1, 3)
    assert (job.checkpoint.every_steps, job.checkpoint.keep) == (50, 3)
    assert job.deterministic is False
    assert job.prepare is None


def test_a_full_job_survives_a_round_trip(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, FULL))
    assert job.teachers[0].replicas == ReplicaRange(min=0, max=8)
    assert job.teachers[0].version == "7 b"
    assert job.teachers[0].env == {"A": "1", "B": "2"}
    assert job.student.nnodes == "1:4"
    assert job.student.args[:5] == ["--epochs", "5", "--lr", "0.0001", "1e-4"]
    assert load_job(write(tmp_path, dump_job(job))) == job


@given(args=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=12)))
def test_any_text_argument_survives_a_round_trip(
    args: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    job = JobConfig.model_validate(
        {"name": "n", "teachers": [{"model": "a:b"}], "student": {"script": "s.py", "args": args}}
    )
    path = write(tmp_path_factory.mktemp("job"), dump_job(job))
    assert load_job(path).student.args == args


def test_a_job_cannot_be_changed(tmp_path: Path) -> None:
    job = load_job(write(tmp_path, MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        job.name = "other"  # type: ignore[misc]


def test_yaml_traps_of_version_1_1_are_gone(tmp_path: Path) -> None:
    text = MINIMAL.replace("digits\n", "no\n", 1) + "  nnodes: 1:30\n  args: [on, 2024-01-01, 1_000, 010]\n"
    job = load_job(write(tmp_path, text))
    assert job.name == "no"
    assert job.student.nnodes == "1:30"
    assert job.student.args == ["on", "2024-01-01", "1_000", "10"]


@pytest.mark.parametrize(("override", "path", "says"), WRONG_VALUES)
def test_a_wrong_value_names_its_path_the_value_and_what_is_allowed(
    tmp_path: Path, override: str, path: str, says: str
) -> None:
    text = refusal(tmp_path, MINIMAL, override)
    assert "1 problem" in text
    assert f"\n  {path}: " in text
    assert says in text


@pytest.mark.parametrize(("override", "path", "hint"), UNKNOWN_KEYS)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    tmp_path: Path, override: str, path: str, hint: str
) -> None:
    text = refusal(tmp_path, MINIMAL, override)
    assert f"{path}: unknown key" in text
    assert hint in text


def test_all_problems_are_listed_at_once(tmp_path: Path) -> None:
    text = refusal(tmp_path, "name: a/b\nteachers: [{modle: 'a:b'}]\n")
    assert "4 problems" in text
    for problem in ("name: 'a/b'", "teachers[0].model: missing", "teachers[0].modle", "student: missing"):
        assert problem in text


def test_two_teachers_of_one_name_are_refused(tmp_path: Path) -> None:
    assert "given twice: teacher" in refusal(tmp_path, MINIMAL, "teachers=[{model: 'a:b'}, {model: 'c:d'}]")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: [1,\nteachers: }", "job.yaml:2:11: not valid YAML"),
        (MINIMAL + "name: again\n", "job.yaml:6:1: not valid YAML: the key `name` is given twice"),
        (MINIMAL + "  script: again.py\n", "`script` is given twice"),
        ("", "this one holds nothing"),
        ("- a\n- b\n", "this one holds a list"),
        ("name: !!python/object:os.system x\n", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_with_the_place(tmp_path: Path, text: str, says: str) -> None:
    assert says in refusal(tmp_path, text)


def test_the_cuts_of_a_deterministic_job_cannot_depend_on_the_machine(tmp_path: Path) -> None:
    automatic = "teachers.0.batch_size=auto"
    assert load_job(write(tmp_path, MINIMAL), [automatic]).teachers[0].batch_size == "auto"
    text = refusal(tmp_path, MINIMAL, "teachers=[{model: 'a:b', batch_size: auto}]", "deterministic=true")
    assert "must then be a number and not auto" in text
    assert "it must be" not in text


def test_labels_of_numbered_samples_are_kept_for_a_data_set_that_is_named(tmp_path: Path) -> None:
    dataset = "teachers.0.dataset=data:make"
    text = refusal(tmp_path, MINIMAL, dataset, "store={path: kept}")
    assert "teacher `teacher` reads samples by their numbers" in text and "store.data" in text
    load_job(write(tmp_path, MINIMAL), [dataset, "store={path: kept, data: images}"])


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "student.degrade=[{teacher: small}]",
            "the job: student.degrade: there is no teacher `small`; there are",
        ),
        (
            "student.degrade=[{teacher: teacher}]",
            "the job: student.degrade: name other teachers than the one",
        ),
        (
            "student.degrade=[{codec: topk:4}, {codec: topk:4:1}]",
            "the job: student.degrade: labels come as topk:4:1 before that entry, too",
        ),
        (
            "student.degrade=[{codec: dense}]",
            "the job: student.degrade: labels come as dense before that entry",
        ),
        ("teachers.0.min_replicas=3", "teachers[0]: min_replicas 3 of 1 workers to start with: "),
        ("teachers.0.dataset_inputs=[0]", "teachers[0]: dataset_inputs says which entries of a dataset"),
        (
            "teachers.0.replicas={min: 3, max: 2}",
            "teachers[0].replicas: min must not exceed max, and 3 exceeds 2",
        ),
        ("teachers=[{model: 'a:b'}, {model: 'c:d'}]", "teachers: every teacher needs a name of its own"),
    ],
)
def test_keys_that_do_not_go_together_are_named_and_not_the_whole_section(
    tmp_path: Path, override: str, line: str
) -> None:
    text = refusal(tmp_path, MINIMAL, override)
    assert f"\n  {line}" in text
    assert "is not allowed" not in text and "it must be" not in text


def test_a_missing_file_a_folder_and_a_binary_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such job file: .*absent.yaml"):
        load_job(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot read the job file"):
        load_job(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not a UTF-8"):
        load_job(tmp_path / "binary.yaml")


def test_overrides_reach_mappings_lists_and_absent_sections(tmp_path: Path) -> None:
    job = load_job(
        write(tmp_path, MINIMAL),
        [
            "teachers.0.replicas=3",
            "checkpoint.keep=9",
            "student.args=[--n, 2]",
            "student.env.A=b",
            "name=x=y",
        ][:4],
    )
    assert job.teachers[0].replicas == 3
    assert job.checkpoint.keep == 9
    assert job.student.args == ["--n", "2"]
    assert job.student.env == {"A": "b"}


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("name", "write key=value"),
        ("=3", "write key=value"),
        ("student..args=3", "write key=value"),
        ("teachers.1.replicas=3", "teachers is a list of 1; use an index from 0 to 0, not `1`"),
        ("teachers.first.replicas=3", "not `first`"),
        ("name.first=3", "name is 'digits', which has no `first` in it"),
        ("student.args=[1", "--set student.args=[1:1:"),
    ],
)
def test_an_override_that_leads_nowhere_says_where_it_stopped(
    tmp_path: Path, override: str, says: str
) -> None:
    assert says in refusal(tmp_path, MINIMAL, override)


def _counts(section: type[BaseModel], path: str = "") -> Iterator[str]:
    """Dotted keys of all fields of the job file that hold a whole number, or may."""
    for name, field in section.model_fields.items():
        key = f"{path}{name}"
        kinds = list(_kinds(field.annotation))
        if int in kinds and key != "teachers.0.dataset_inputs":
            yield key
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _counts(kind, f"{key}.0." if name == "teachers" else f"{key}.")


def _kinds(annotation: object) -> Iterator[object]:
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


@pytest.mark.parametrize("key", [*_counts(JobConfig), "student.nnodes", "teachers.0.dataset_inputs.0"])
def test_every_count_has_a_most(tmp_path: Path, key: str) -> None:
    document = yaml.safe_load(MINIMAL)
    document["teachers"][0]["dataset"] = "data:make"
    document["teachers"][0]["dataset_inputs"] = [0]
    if key.startswith("teachers.0.replicas."):
        document["teachers"][0]["replicas"] = {"min": 1, "max": 2}
    for value in (1_000_000_001, 10**30):
        said = refusal(tmp_path, yaml.safe_dump(document), f"{key}={value}")
        assert str(value) in said


def test_node_ranges() -> None:
    assert node_range("3") == (3, 3)
    assert node_range("1:4") == (1, 4)
    for wrong in ("", "1:", ":2", "a", "2:1", "0", "1:2:3", "-1", "10001", "1:99999", "\u0663"):
        with pytest.raises(ValueError):
            node_range(wrong)


def test_a_range_starts_with_its_lower_bound_and_at_least_one(tmp_path: Path) -> None:
    for low, start in ((0, 1), (2, 2)):
        job = load_job(write(tmp_path, MINIMAL), [f"teachers.0.replicas={{min: {low}, max: 4}}"])
        assert job.teachers[0].initial_replicas == start
    job = load_job(write(tmp_path, MINIMAL), ["teachers.0.replicas={min: 1, max: 4, start: 3}"])
    assert job.teachers[0].initial_replicas == 3


def test_a_file_of_keys_is_as_many_overrides(tmp_path: Path) -> None:
    keys = tmp_path / "plan.yaml"
    keys.write_text("teachers.0.batch_size: 48\nteachers.0.replicas: {min: 1, max: 4, start: 3}\n")
    job = load_job(write(tmp_path, MINIMAL), [f"@{keys}", "teachers.0.replicas.start=2"])
    assert job.teachers[0].batch_size == 48
    assert job.teachers[0].initial_replicas == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "needs a mapping of keys"),
        ("[1, 2]", "needs a mapping of keys"),
        ("a: [", "--set @"),
        ("1: 2", "1 is no key of a job file"),
        ("teachers..replicas: 2", "'teachers..replicas' is no key of a job file"),
        ("teachers.7.replicas: 2", "teachers is a list of 1"),
        ("teachers.0.replicas: many", "teachers[0].replicas: 'many'"),
    ],
)
def test_a_file_of_keys_that_holds_something_else_is_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    assert says in refusal(tmp_path, MINIMAL, f"@{tmp_path / 'plan.yaml'}")


def test_a_file_of_keys_that_is_missing_is_named(tmp_path: Path) -> None:
    assert "none.yaml: cannot read it" in refusal(tmp_path, MINIMAL, f"@{tmp_path / 'none.yaml'}")


def test_reading_a_job_imports_no_torch() -> None:
    code = "import sys, edldist.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_schema_knows_every_key_with_what_is_allowed() -> None:
    schema = job_schema()
    assert schema["$schema"].startswith("https://json-schema.org/")
    sections = {"JobConfig": schema, **schema["$defs"]}
    for section in (JobConfig, TeacherConfig, StudentConfig, CheckpointConfig, CoordinatorConfig):
        known = sections[section.__name__]
        assert known["additionalProperties"] is False
        assert set(known["properties"]) == set(section.model_fields)
        assert all(known["properties"][key]["description"] for key in section.model_fields)


@pytest.mark.parametrize(
    ("section", "key", "allowed"),
    [
        ("StudentConfig", "nproc_per_node", [{"type": "integer", "minimum": 1}, {"enum": ["gpu", "auto"]}]),
        ("StudentConfig", "nnodes", [{"type": "string"}, {"type": "integer"}]),
        ("TeacherConfig", "batch_size", [{"type": "integer", "minimum": 1}, {"const": "auto"}]),
        ("TeacherConfig", "min_replicas", [{"type": "integer", "minimum": 1}, {"type": "null"}]),
    ],
)
def test_the_schema_allows_what_the_job_file_may_say(
    section: str, key: str, allowed: list[dict[str, Any]]
) -> None:
    forms = job_schema()["$defs"][section]["properties"][key]["anyOf"]
    assert len(forms) == len(allowed)
    for form, wanted in zip(forms, allowed, strict=True):
        assert wanted.items() <= form.items()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({}, ""),
        ({"batch_size": 3, "replicas": 2, "compile": True, "weights": "w.pt", "version": "2"}, ""),
        ({"kwargs": {"pool": "max", "heads": [1, 2]}}, '{"kwargs": {"heads": [1, 2], "pool": "max"}}'),
        ({"kwargs": {"path": "models/big"}}, '{"kwargs": {"path": "big"}}'),
        ({"kwargs": {"paths": ["/there/models/big/"]}}, '{"kwargs": {"paths": ["big"]}}'),
        ({"outputs": ["b", "a"], "autocast": "bf16"}, '{"autocast": "bf16", "outputs": ["a", "b"]}'),
        ({"dataset": "d:f", "dataset_inputs": [1, "x"]}, '{"dataset_inputs": [1, "x"]}'),
        ({"model": "vllm:http://h:1", "kwargs": {"concurrency": 4}}, ""),
    ],
)
def test_settings_of_labels_are_what_changes_them_and_no_weights_tell(
    section: dict[str, Any], said: str
) -> None:
    assert TeacherConfig.model_validate({"model": "m:f"} | section).label_settings == said


def test_settings_of_labels_are_bounded() -> None:
    long = [TeacherConfig(model="m:f", kwargs={"words": ["x"] * count}) for count in (999, 998)]
    said = [teacher.label_settings for teacher in long]
    assert said[0] != said[1] and all(len(each) < 100 for each in said)
