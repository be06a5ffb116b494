"""What makes two workers one teacher, and who laid it down."""

from __future__ import annotations

import pytest

from edldist.errors import ConfigError
from edldist.labels.fingerprint import check_version
from edldist.labels.grammar import parse_spec
from edldist.labels.standard import Standard
from tests.greetings import FINGERPRINT, fingerprint

OTHERS = {
    "model": fingerprint(model="tests.models:large"),
    "weights": fingerprint(weights="77bc"),
    "version": fingerprint(version="2"),
    "codec": fingerprint(codec="other"),
}


def test_a_fingerprint_differs_in_nothing_from_its_like():
    assert FINGERPRINT.differences(fingerprint()) == []


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("model", "model tests.models:large instead of tests.models:identify"),
        ("weights", "weights 77bc instead of (none)"),
        ("version", "version 2 instead of (none)"),
        ("codec", "codec other instead of dense"),
    ],
)
def test_each_difference_names_both_sides(field, words):
    assert OTHERS[field].differences(FINGERPRINT) == [words]


def test_all_differences_are_named():
    other = fingerprint("other", weights="77bc", outputs=["logits"])
    assert other.differences(fingerprint(outputs=["a", "b"])) == [
        "weights 77bc instead of (none)",
        "codec other instead of dense",
        "outputs logits instead of a, b",
    ]


def test_outputs_that_are_not_known_yet_are_no_difference():
    known = fingerprint(outputs=["logits"])
    assert known.differences(FINGERPRINT) == FINGERPRINT.differences(known) == []


def test_many_outputs_differ_though_their_words_are_cut():
    names = [f"n{number}" for number in range(20)]
    other = fingerprint(outputs=[*names[:-1], "m"])
    assert other.differences(fingerprint(outputs=names))[0].startswith("outputs n0, n1, n2")


@pytest.mark.parametrize("field", OTHERS)
def test_a_worker_that_differs_is_refused_with_both_sides(field):
    standard = Standard("t")
    assert standard.admit("first", FINGERPRINT) is None
    reason, incompatible = standard.admit("second", OTHERS[field])
    assert incompatible
    assert reason.startswith(
        f"worker second is not like worker first, by which this student knows teacher 't': {field} "
    )
    assert standard.admit("third", FINGERPRINT) is None
    assert standard.fingerprint == FINGERPRINT


def test_an_explicit_codec_refuses_all_others_even_the_first():
    standard = Standard("t", parse_spec("dense:fp16"))
    reason, incompatible = standard.admit("w", FINGERPRINT)
    assert "sends codec dense; this student takes labels of teacher 't' as dense:fp16" in reason
    assert not incompatible, "it is as well as those of its group: other students may want it"
    half = fingerprint().__class__(model="m:f", codec=parse_spec("dense:fp16"))
    assert standard.admit("w", half) is None
    assert standard.admit("v", FINGERPRINT).incompatible, "it is unlike the others of its group"


def test_outputs_are_learnt_from_labels_and_bind_workers_that_know_theirs():
    standard = Standard("t")
    standard.admit("first", FINGERPRINT)
    assert standard.objection("first", "", ["b", "a"]) is None
    standard.fix(["b", "a"])
    assert standard.objection("first", "", ["b", "a"]) is None
    assert standard.objection("second", "", ["a", "b"]) is None, "by name, not by order"
    reason, incompatible = standard.objection("second", "", ["a"])
    assert incompatible and "outputs a instead of a, b" in reason
    assert standard.admit("third", fingerprint(outputs=["a", "b"])) is None
    assert standard.admit("new", FINGERPRINT) is None, "it will learn its own; the group's stay what they are"
    reason, incompatible = standard.admit("fourth", fingerprint(outputs=["c"]))
    assert incompatible and "outputs c instead of a, b" in reason


def test_outputs_are_learnt_from_a_greeting_too():
    standard = Standard("t")
    standard.admit("first", FINGERPRINT)
    standard.admit("second", fingerprint(outputs=["a"]))
    assert standard.objection("first", "", ["b"]) is not None


def test_labels_of_another_version_are_none_of_the_group():
    standard = Standard("t")
    standard.admit("w", fingerprint(version="1"))
    standard.fix(["logits"])
    assert standard.objection("w", "1", ["logits"]) is None
    reason, incompatible = standard.objection("w", "2", ["logits"])
    assert incompatible and "is not what it was when it came: version 2 instead of 1" in reason


def test_a_group_that_everyone_left_begins_anew_until_its_labels_were_used():
    standard = Standard("t")
    standard.admit("mistaken", OTHERS["model"])
    standard.deserted()
    assert standard.admit("right", FINGERPRINT) is None
    standard.fix(["logits"])
    standard.deserted()
    assert standard.admit("mistaken", OTHERS["model"]) is not None
    assert standard.admit("right", FINGERPRINT) is None


@pytest.mark.parametrize("field", OTHERS)
def test_a_checkpoint_lays_down_whose_labels_are_taken_whoever_comes_and_goes(field):
    standard = Standard("t")
    standard.expect(FINGERPRINT)
    for _ in range(2):
        reason, incompatible = standard.admit("w", OTHERS[field])
        assert not incompatible, "this student has a checkpoint; another one may have none"
        assert reason.startswith(
            f"worker w is not like those of teacher 't' that labelled for the checkpoint from which this "
            f"student goes on: {field} "
        )
        assert " instead of " in reason and "EDLDIST_EXTEND=1" in reason and "'edldist run'" in reason
        assert standard.admit("right", FINGERPRINT) is None
        assert not standard.fixed, "no labels have come since"
        standard.deserted()


def test_a_checkpoint_that_is_gone_on_from_takes_the_place_of_what_was_laid_down():
    standard = Standard("t")
    standard.admit("other", OTHERS["weights"])
    standard.fix(["logits"])
    standard.expect(fingerprint(outputs=["logits"]))
    assert standard.admit("other", OTHERS["weights"]) is not None
    assert standard.admit("w", FINGERPRINT) is None
    assert standard.objection("w", "", ["logits"]) is None
    reason, incompatible = standard.objection("w", "", ["features"])
    assert (
        not incompatible and "for the checkpoint" in reason and "outputs features instead of logits" in reason
    )


def test_labels_before_any_greeting_are_a_bug():
    with pytest.raises(ValueError, match="none was admitted"):
        Standard("t").objection("w", "", [])


@pytest.mark.parametrize("version", ["", "1", "2026-11-26 abc", "v1/α"])
def test_a_version_is_what_a_user_likes(version):
    assert check_version(version) == version


@pytest.mark.parametrize("version", [" 1", "1 ", "a\nb", "\t", "\udcff", "x" * 101])
def test_a_version_that_cannot_be_shown_is_refused_with_its_value(version):
    with pytest.raises(ConfigError, match="version .*: use up to 100 printable characters"):
        check_version(version)
