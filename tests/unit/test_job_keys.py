"""The keys of a submitted job: which they are, and who finds them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edldist.errors import ConfigError
from edldist.keys.folder import KeyFolder
from edldist_launch.contract.job_keys import JobKeys, link_here, use_keys_of
from edldist_launch.contract.submission import Submission
from edldist_launch.plan.commands import inherited_environment


def test_a_job_has_keys_of_its_own_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    own = JobKeys.of(tmp_path / "out", {})
    assert own == JobKeys(tmp_path / "out" / "keys", own=True)
    assert own.environment == {"EDLDIST_KEYS": str(tmp_path / "out" / "keys")}
    own.ready()
    made = own.contents()
    own.ready()
    assert own.contents() == made and set(made) == {
        *("known.json", "coordinator.key", "teacher.key", "student.key", "operator.key"),
    }
    given = JobKeys.of(tmp_path / "out", {"EDLDIST_KEYS": "/team/keys", "EDLDIST_INSECURE": "1"})
    assert given == JobKeys(Path("/team/keys"))
    none = JobKeys.of(tmp_path / "out", {"EDLDIST_INSECURE": "1"})
    none.ready()
    assert (none.folder, none.environment, none.contents()) == (None, {"EDLDIST_INSECURE": "1"}, {})


def test_given_keys_have_to_be_of_all_roles(tmp_path: Path) -> None:
    keys = KeyFolder(tmp_path / "keys")
    with pytest.raises(ConfigError, match=r"known\.json: No such file"):
        JobKeys(keys.path).ready()
    keys.make()
    (keys.path / "student.key").unlink()
    with pytest.raises(ConfigError, match="has none of the keys that a student needs"):
        JobKeys(keys.path).ready()


@pytest.mark.parametrize(
    ("here", "link", "then"),
    [
        ({}, {"EDLDIST_KEYS": "/job/keys"}, {"EDLDIST_KEYS": "/job/keys"}),
        ({}, {"EDLDIST_INSECURE": "1"}, {"EDLDIST_INSECURE": "1"}),
        ({"EDLDIST_KEYS": "/mine"}, {"EDLDIST_KEYS": "/job/keys"}, {"EDLDIST_KEYS": "/mine"}),
        ({"EDLDIST_INSECURE": "1"}, {"EDLDIST_KEYS": "/job/keys"}, {"EDLDIST_INSECURE": "1"}),
        ({}, {"LD_PRELOAD": "/job/evil.so"}, {}),
        ({}, {}, {}),
    ],
)
def test_a_command_uses_the_keys_of_the_jobs_record_and_nothing_else(
    here: dict[str, str], link: dict[str, str], then: dict[str, str]
) -> None:
    environment = dict(here)
    use_keys_of(Submission("slurm", "toy", 0.0, link=link), environment)
    assert environment == then == link_here(environment)


def test_what_a_job_starts_has_the_keys_of_who_started_it() -> None:
    given = {"EDLDIST_KEYS": "/team/keys", "EDLDIST_INSECURE": "1", "EDLDIST_OUTPUT": "/elsewhere"}
    assert inherited_environment(given) == {
        "EDLDIST_KEYS": "/team/keys",
        "EDLDIST_INSECURE": "1",
        "PYTHONUNBUFFERED": "1",
    }
