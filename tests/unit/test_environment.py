"""What a student script is told through its environment."""

from __future__ import annotations

import pytest

from edldist.environment import JobEnvironment, LabelMaker, StoreEnvironment
from edldist.errors import ConfigError


def test_outside_a_job_everything_has_its_default() -> None:
    outside = JobEnvironment.read({})
    assert (outside.coordinator, outside.output, outside.advertise) == (None, None, None)
    assert (outside.deterministic, outside.task_size) == (False, None)
    assert (outside.weight, outside.priority) == (None, 0)
    assert (outside.connect_timeout_s, outside.heartbeat_ttl_s) == (300.0, 3.0)
    assert outside.agreement == (0.1, 0.1, 60.0)


def test_inside_a_job_everything_is_read() -> None:
    inside = JobEnvironment.read(
        {
            "EDLDIST_COORDINATOR": "tcp://h:1",
            "EDLDIST_OUTPUT": "/out",
            "EDLDIST_ADVERTISE": "10.0.0.5",
            "EDLDIST_DETERMINISTIC": "1",
            "EDLDIST_TASK_SIZE": "32",
            "EDLDIST_JOB": "digits",
            "EDLDIST_WEIGHT": "3",
            "EDLDIST_PRIORITY": "-2",
            "EDLDIST_DEGRADE": "small, codec=topk:16, tiny",
            "EDLDIST_CHECKPOINT_KEEP": "7",
            "EDLDIST_CHECKPOINT_EVERY_STEPS": "50",
            "EDLDIST_CONNECT_TIMEOUT_S": "2.5",
            "EDLDIST_HEARTBEAT_TTL_S": "20",
            "EDLDIST_AGREEMENT": " every_s=5, max_nats=0.2",
        }
    )
    assert (inside.coordinator, inside.output, inside.advertise) == ("tcp://h:1", "/out", "10.0.0.5")
    assert (inside.deterministic, inside.task_size) == (True, 32)
    assert (inside.weight, inside.priority) == (3, -2)
    assert list(map(str, inside.degrade)) == ["small", "codec=topk:16", "tiny"]
    assert (inside.job, inside.checkpoint_keep, inside.checkpoint_every_steps) == ("digits", 7, 50)
    assert (inside.connect_timeout_s, inside.heartbeat_ttl_s) == (2.5, 20.0)
    assert inside.agreement == (0.2, 0.1, 5.0)
    assert JobEnvironment.read({"EDLDIST_AGREEMENT": "OFF"}).agreement is None


@pytest.mark.parametrize(
    ("job", "script", "both"),
    [
        ({}, (None, None), (2, 8)),
        ({}, (1, 3), (1, 3)),
        ({}, (None, 4), (2, 4)),
        ({"HIGH": "16"}, (None, None), (4, 16)),
        ({"HIGH": "2"}, (None, None), (0, 2)),
        ({"HIGH": "16", "LOW": "1"}, (None, None), (1, 16)),
        ({"LOW": "1"}, (None, None), (1, 8)),
        ({"HIGH": "16", "LOW": "1"}, (3, 4), (3, 4)),
        ({"HIGH": "16"}, (3, None), (3, 16)),
    ],
)
def test_a_script_that_says_how_far_it_reads_ahead_is_heeded_before_the_job(job, script, both) -> None:
    environ = {f"EDLDIST_{name}_WATERMARK": value for name, value in job.items()}
    assert JobEnvironment.read(environ).watermarks_as(*script) == both


def test_empty_variables_count_as_unset() -> None:
    names = ("COORDINATOR", "OUTPUT", "ADVERTISE", "DETERMINISTIC", "TASK_SIZE", "CONNECT_TIMEOUT_S")
    empty = {f"EDLDIST_{name}": "" for name in names}
    assert JobEnvironment.read(empty) == JobEnvironment.read({})


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("true", True), ("YES", True), ("0", False), ("False", False), ("no", False)],
)
def test_flags(text: str, value: bool) -> None:
    assert JobEnvironment.read({"EDLDIST_DETERMINISTIC": text}).deterministic is value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("EDLDIST_DETERMINISTIC", "maybe"),
        ("EDLDIST_WEIGHT", "0"),
        ("EDLDIST_WEIGHT", "1001"),
        ("EDLDIST_WEIGHT", "1.5"),
        ("EDLDIST_WEIGHT", "-1"),
        ("EDLDIST_HIGH_WATERMARK", "0"),
        ("EDLDIST_LOW_WATERMARK", "-1"),
        ("EDLDIST_DEGRADE", "small,,tiny"),
        ("EDLDIST_DEGRADE", "small, small"),
        ("EDLDIST_DEGRADE", "small, codec="),
        ("EDLDIST_DEGRADE", "kodek=topk:16"),
        ("EDLDIST_DEGRADE", "a,b,c,d,e,f,g,h,i"),
        ("EDLDIST_PRIORITY", "101"),
        ("EDLDIST_PRIORITY", "-101"),
        ("EDLDIST_PRIORITY", "--1"),
        ("EDLDIST_PRIORITY", "urgent"),
        ("EDLDIST_AGREEMENT", "maybe"),
        ("EDLDIST_CHECKPOINT_KEEP", "0"),
        ("EDLDIST_CHECKPOINT_EVERY_STEPS", "often"),
        ("EDLDIST_TASK_SIZE", "0"),
        ("EDLDIST_TASK_SIZE", "-4"),
        ("EDLDIST_TASK_SIZE", "1.5"),
        ("EDLDIST_TASK_SIZE", "many"),
        ("EDLDIST_CONNECT_TIMEOUT_S", "0"),
        ("EDLDIST_CONNECT_TIMEOUT_S", "-1"),
        ("EDLDIST_CONNECT_TIMEOUT_S", "nan"),
        ("EDLDIST_CONNECT_TIMEOUT_S", "inf"),
        ("EDLDIST_CONNECT_TIMEOUT_S", "soon"),
        ("EDLDIST_HEARTBEAT_TTL_S", "0"),
        ("EDLDIST_HEARTBEAT_TTL_S", "soon"),
        ("EDLDIST_HEARTBEAT_TTL_S", "3601"),
        ("EDLDIST_CONNECT_TIMEOUT_S", "1e300"),
        ("EDLDIST_TASK_SIZE", "1000000001"),
        ("EDLDIST_CHECKPOINT_KEEP", "1" + "0" * 5000),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}='{text}'"):
        JobEnvironment.read({name: text})


@pytest.mark.parametrize("text", ["max_nats=-1", "max_nats=nan", "every_s=1e9", "nats=1"])
def test_a_wrong_bound_is_refused_with_its_name(text: str) -> None:
    with pytest.raises(ConfigError, match=f"EDLDIST_AGREEMENT: .*{text.partition('=')[0]}"):
        JobEnvironment.read({"EDLDIST_AGREEMENT": text})


def test_without_an_argument_the_process_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDLDIST_COORDINATOR", "tcp://elsewhere:9")
    assert JobEnvironment.read().coordinator == "tcp://elsewhere:9"


# --- where labels are kept --------------------------------------------------------------------------------


def test_a_store_is_read_with_all_that_is_said_of_it() -> None:
    assert JobEnvironment.read({}).store is None
    assert JobEnvironment.read({"EDLDIST_STORE": "kept"}).store == StoreEnvironment("kept")
    said = JobEnvironment.read(
        {
            "EDLDIST_STORE": "s3://bucket/kept",
            "EDLDIST_STORE_MEMORY_MIB": "2048",
            "EDLDIST_STORE_DISK_MIB": "102400",
            "EDLDIST_STORE_PREPROCESSING": "crop 224",
            "EDLDIST_STORE_DATA": "images, 2",
            "EDLDIST_STORE_READ_ONLY": "1",
            "EDLDIST_STORE_ONLY": "1",
            "EDLDIST_STORE_TEACHERS": '{"big": {"model": "my:teacher", "codec": "topk:64"}}',
        }
    ).store
    made_by = {"big": LabelMaker("my:teacher", "topk:64")}
    assert said == StoreEnvironment(
        "s3://bucket/kept", 2048, 102400, "crop 224", "images, 2", True, True, made_by
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EDLDIST_STORE_MEMORY_MIB", "1GiB"),
        ("EDLDIST_STORE_DISK_MIB", "0"),
        ("EDLDIST_STORE_ONLY", "perhaps"),
        ("EDLDIST_STORE_READ_ONLY", "2"),
        ("EDLDIST_STORE_TEACHERS", "[1]"),
        ("EDLDIST_STORE_TEACHERS", '{"big": {"modle": "my:teacher"}}'),
    ],
)
def test_what_cannot_be_said_of_a_store_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        JobEnvironment.read({"EDLDIST_STORE": "kept", name: value})
