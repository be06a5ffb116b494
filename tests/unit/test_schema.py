"""The job file's JSON schema, asked by a validator: what editors will mark, and what they will not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edldist.config import (
    CheckpointConfig,
    CoordinatorConfig,
    JobConfig,
    ScriptConfig,
    SlurmConfig,
    SlurmRoleConfig,
    StudentConfig,
    TeacherConfig,
    dump_job,
    job_schema,
    load_job,
)
from edldist.errors import ConfigError
from edldist.yamltext import parse_yaml
from tests.unit.jobs import FULL, MINIMAL, UNKNOWN_KEYS, WRONG_VALUES

jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).resolve().parents[2]
JOBS = sorted(path for path in (ROOT / "examples").glob("*/*.yaml") if path.stem != "space")  # of a tuning

# It knows nothing of what depends on two places, of codecs no more than their names, and of what is no JSON.
BEYOND_A_SCHEMA = {
    "teachers.0.name=student",
    "teachers.0.replicas={min: 3, max: 2}",
    "teachers.0.replicas={min: 1, max: 3, start: 4}",
    "teachers.0.replicas={min: 2, max: 3, start: 1}",
    "teachers.0={model: 'a:b', dataset_inputs: [0]}",
    "teachers.0={model: 'a:b', min_replicas: 2}",
    "teachers.0={model: 'a:b', weights: 'follow:'}",
    "teachers.0={model: 'a:b', weights: 'follow:w', version: '2'}",
    "teachers.0.codec=dense:int8",
    "teachers.0.codec=topk:0",
    "teachers.0.kwargs={a: !!set {b}}",
    "student.nnodes=4:1",
    "student.low_watermark=8",
    "student.degrade=[{}]",
    "student.degrade=[{codec: topk}]",
    "student.degrade=[{codec: gather}]",
    "student.degrade=[{codec: int8, teacher: a}]",
    "label={data: 'm:f', inputs: [a, a]}",
    "coordinator.resources={gpu_type: a100}",
    "slurm={time_limit: 2}",
    "slurm={student: {time_limit: '1:00'}}",
    "slurm={time_limit: '2:00', warn_s: 60}",
    "slurm={options: [--array=1-9]}",
    "slurm={options: [--partition=x]}",
    "slurm={options: [--mem=4G]}",
    "slurm={teachers: {nobody: {partition: x}}}",
    "kubernetes={claim: a, storage_class: b}",
    "kubernetes.tolerations=[{operator: Equal, value: a}]",
    "kubernetes.tolerations=[{key: a, value: b}]",
    "kubernetes.volumes=[{claim: a, path: /b}, {claim: c, path: /b}]",
    "kubernetes.teachers={big: {}}",
    "label={data: 'm:f', sequences: {}}",
    "label={data: 'm:f', inputs: x, ids: index, sequences: {}}",
    "label={data: 'm:f', inputs: x, sequences: {whole: true, asked: x}}",
}


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema.Draft202012Validator.check_schema(job_schema())
    return jsonschema.Draft202012Validator(job_schema())


def problems(validator: Any, document: object) -> list[str]:
    return [error.message for error in validator.iter_errors(document)]


def changed(override: str, text: str = MINIMAL) -> Any:
    """A job, with an override of it as ``--set`` makes it."""
    document = parse_yaml(text, "job")
    key, _, value = override.partition("=")
    place, (*parents, last) = document, [int(part) if part.isdecimal() else part for part in key.split(".")]
    for part in parents:
        place = place[part] if isinstance(place, list) else place.setdefault(part, {})
    place[last] = parse_yaml(value, override)
    return document


def test_the_examples_are_found() -> None:
    assert {job.parent.name for job in JOBS} >= {"accelerate", "digits", "huggingface", "lightning"}


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.parent.name)
def test_every_example_is_taken_as_it_is_and_as_it_is_resolved(validator: Any, path: Path) -> None:
    assert problems(validator, parse_yaml(path.read_text(encoding="utf-8"), str(path))) == []
    assert problems(validator, parse_yaml(dump_job(load_job(path)), str(path))) == []


@pytest.mark.parametrize("text", [MINIMAL, FULL])
def test_the_least_and_the_fullest_job_are_taken(validator: Any, text: str) -> None:
    assert problems(validator, parse_yaml(text, "job")) == []


@pytest.mark.parametrize("override", [case[0] for case in [*WRONG_VALUES, *UNKNOWN_KEYS]])
def test_what_load_job_refuses_is_refused_but_for_what_no_schema_can_tell(
    validator: Any, override: str
) -> None:
    assert (problems(validator, changed(override)) == []) == (override in BEYOND_A_SCHEMA)


@pytest.mark.parametrize("missing", ["name", "teachers", "student"])
def test_a_missing_section_is_refused_by_its_name(validator: Any, missing: str) -> None:
    document = parse_yaml(MINIMAL, "job")
    del document[missing]
    assert problems(validator, document) == [f"'{missing}' is a required property"]


VALUES = [
    *("null", "true", "false", "-1", "0", "1", "2", "0.5", "1.0", "1.5", "100", "10001", ".inf", '""', '" "'),
    *(
        "auto",
        "gpu",
        "cpu",
        "cuda:1",
        "dense",
        "dense:fp16",
        "bf16",
        "raise",
        "skip",
        "live",
        '"1"',
        '"1:4"',
        "1.10",
    ),
    *(
        "a:b",
        "a.b:c.d",
        "hf:x",
        "vllm:http://h:8000",
        "'sglang:https://h/team#Qwen/Qwen3-8B'",
        "'vllm:http://h#'",
        "x.py",
        '"a b"',
        "[]",
        "[x]",
        "[1]",
        "[x, x]",
        "[x, 1, 0.5]",
        '["a,b"]',
        "[' x']",
    ),
    *(
        "{}",
        "{A: x, B: 1, C: 1.5}",
        "{a: {b: [null, 1.5]}}",
        "{1: x}",
        "{min: 1, max: 2}",
        "{min: 0, max: 1}",
    ),
    *("gpu", "1:30:00", "2-00", "a&b", "accel:2", "[--exclusive]", "{partition: a}", "{teacher: {nice: 1}}"),
    *("{every_steps: null}", "{heartbeat_ttl_s: 3}", "{script: x.py}", "{script: x.py, args: [1, x, 0.5]}"),
    "{cpus: 2, memory: 16GiB, gpus: 1, gpu_type: a100}",
    "[{model: 'a:b'}, {name: b, model: 'hf:x', replicas: 2, min_replicas: 1}]",
]

SECTIONS = {
    "": JobConfig,
    "teachers.0.": TeacherConfig,
    "student.": StudentConfig,
    "checkpoint.": CheckpointConfig,
    "coordinator.": CoordinatorConfig,
    "prepare.": ScriptConfig,
    "slurm.": SlurmConfig,
    "slurm.student.": SlurmRoleConfig,
    "slurm.teachers.teacher.": SlurmRoleConfig,
}


@pytest.mark.parametrize(
    "key", [section + key for section, its in SECTIONS.items() for key in its.model_fields]
)
def test_what_load_job_takes_the_schema_takes(validator: Any, key: str, tmp_path: Path) -> None:
    text = MINIMAL + ("prepare: {script: p.py}\n" if key.startswith("prepare.") else "")
    if "dataset" in key:
        text = text.replace("student:", "    dataset: a:d\nstudent:")
    path = tmp_path / "job.yaml"
    path.write_text(text, encoding="utf-8")
    taken = 0
    for value in VALUES:
        try:
            load_job(path, [f"{key}={value}"])
        except ConfigError:
            continue
        taken += 1
        assert problems(validator, changed(f"{key}={value}", text)) == [], value
    assert taken > 0
