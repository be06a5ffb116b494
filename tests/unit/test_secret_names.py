"""Which variables hold secrets, and what is shown without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edldist.config import JobConfig
from edldist.secret_names import (
    HIDDEN,
    helper_environment,
    is_secret,
    without_secrets,
    words_without_secrets,
)
from edldist_launch.record.earlier import differences
from edldist_launch.record.folder import JobFolder


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *[(name, True) for name in ("HF_TOKEN", "WANDB_API_KEY", "OPENAI_APIKEY", "AWS_SECRET_ACCESS_KEY")],
        *[(name, True) for name in ("PGPASSWORD", "MLFLOW_TRACKING_PASSWORD", "DB_PASS", "my_token", "KEY")],
        *[(name, False) for name in ("EDLDIST_KEYS", "TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS", "MONKEY")],
        *[(name, False) for name in ("EDLDIST_HTTP_TOKEN_FILE", "SSH_KEY_PATH", "PASSES", "PATH", "BYPASS")],
    ],
)
def test_names_tell_what_is_secret(name: str, secret: bool) -> None:
    assert is_secret(name) is secret


def test_a_document_is_shown_without_the_secrets_of_its_variables() -> None:
    document = {
        "teachers": [{"env": {"HF_TOKEN": "hf_1", "OMP_NUM_THREADS": "2"}, "kwargs": {"TOKEN": "<eos>"}}],
        "student": {"env": None},
    }
    assert without_secrets(document) == {
        "teachers": [{"env": {"HF_TOKEN": HIDDEN, "OMP_NUM_THREADS": "2"}, "kwargs": {"TOKEN": "<eos>"}}],
        "student": {"env": None},
    }


def test_words_of_others_are_shown_without_passwords() -> None:
    environment = {
        "WANDB_API_KEY": "k3y-k3y",
        "OLD_API_KEY": "k3y-k3y-and-more",
        "A_KEY": "is",
        "PLACE": "host",
    }
    words = "GET http://me:p@ss@host/api?a=b is refused: k3y-k3y, k3y-k3y-and-more; see http://host/me@home"
    assert words_without_secrets(words, environment) == (
        f"GET http://{HIDDEN}@host/api?a=b is refused: {HIDDEN}, {HIDDEN}; see http://host/me@home"
    )


def test_a_helper_gets_no_secret() -> None:
    assert helper_environment({"PATH": "/bin", "HF_TOKEN": "hf_1", "EDLDIST_KEYS": "k"}) == {
        "PATH": "/bin",
        "EDLDIST_KEYS": "k",
    }


def job(**variables: str) -> JobConfig:
    document = {
        "name": "toy",
        "teachers": [{"model": "a:b", "env": variables}],
        "student": {"script": "s.py"},
    }
    return JobConfig.model_validate(document)


def test_another_password_makes_no_other_job_and_is_not_shown() -> None:
    assert differences(job(HF_TOKEN="hf_1", LEVEL="1"), job(HF_TOKEN="hf_2", LEVEL="1")) == []
    (changed,) = differences(job(HF_TOKEN="hf_1", LEVEL="1"), job(LEVEL="2"))
    assert changed == "teachers[0].env.LEVEL: 1 -> 2"


@pytest.mark.parametrize(("variables", "mode"), [({"HF_TOKEN": "hf_1"}, 0o600), ({"LEVEL": "1"}, 0o644)])
def test_only_its_owner_reads_a_job_file_with_secrets(
    variables: dict[str, str], mode: int, tmp_path: Path
) -> None:
    (tmp_path / ".job.yaml.new").touch(mode=0o666)  # of a process that was killed
    with JobFolder(tmp_path, job(**variables)):
        assert (tmp_path / "job.yaml").stat().st_mode & 0o777 == mode
