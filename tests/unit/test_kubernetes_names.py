"""What a job's objects on Kubernetes are called, whatever it is called itself."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from edldist_launch.kubernetes.names import MOST_JOB, Names, safe_name

LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
JOBS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", fullmatch=True)
GROUPS = st.from_regex(r"[A-Za-z0-9_.-]{1,100}", fullmatch=True)
# Few letters, so that names come close to each other.
CLOSE = st.text("ab-_", min_size=1, max_size=6)
FIXED = ("coordinator", "student", "prepare", "output", "secret", "file")


def all_names(job: str, groups: list[str]) -> list[str]:
    names = Names(job)
    return [*(names.fixed(what) for what in FIXED), *(names.teacher(group) for group in groups)]


def test_names_that_fit_stay_as_they_are() -> None:
    names = Names("digits-2")
    assert names.label == "digits-2"
    assert (names.fixed("coordinator"), names.teacher("big")) == ("digits-2-coordinator", "digits-2-big")


def test_others_are_told_apart_by_a_digest() -> None:
    assert re.fullmatch("digits-[0-9a-f]{8}", safe_name("Digits", 33))
    odd = ["a_b", "a.b", "A-b", "a-B", "a-b-", "_a-b", "a--b!", "1a", "", "a" * 40, "a" * 41]
    assert len({safe_name(name, 33) for name in odd} | {"a-b", "a"}) == len(odd) + 2


def test_no_name_passes_for_the_digest_of_another() -> None:
    made = safe_name("A_b", 33)
    assert safe_name(made, 33) != made


@given(JOBS, GROUPS)
def test_all_of_them_are_names_that_kubernetes_takes(job: str, group: str) -> None:
    names = Names(job)
    assert LABEL.fullmatch(names.label) and len(names.label) <= MOST_JOB
    for name in (*all_names(job, [group]), names.role(group)):
        assert LABEL.fullmatch(name) and len(name) <= 63, name


@given(st.lists(st.tuples(CLOSE, st.lists(CLOSE, unique=True, max_size=4)), unique_by=lambda job: job[0]))
def test_no_two_objects_share_a_name(jobs: list[tuple[str, list[str]]]) -> None:
    made = [name for job, groups in jobs for name in all_names(job, groups)]
    assert len(set(made)) == len(made)


@given(
    st.sampled_from(["a", "a-b"]),
    st.sampled_from(["student", "coordinator", "file", "a-student", "0123abcd"]),
)
def test_a_teacher_may_be_called_as_another_role(job: str, group: str) -> None:
    assert len(set(all_names(job, [group]))) == len(FIXED) + 1
