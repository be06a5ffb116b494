"""Which teachers' labels a loop has learnt from, as its checkpoints keep it."""

from __future__ import annotations

import json

import pytest

from edldist.errors import CheckpointError
from edldist.labels.fingerprint import VocabularyMark
from edldist.student.teachers.known_teachers import KnownTeachers
from tests.greetings import fingerprint

A, B = fingerprint(weights="aa", outputs=["logits"]), fingerprint("dense:fp16", weights="bb", version="2")


def known(*teachers, by_rank=False, extend=False) -> KnownTeachers:
    return KnownTeachers(teachers or ("t", "u"), by_rank, extend)


def test_what_was_learnt_from_is_saved_as_plain_values_and_read_again():
    one = known()
    assert one.shared_state() == {} and not one.complete
    one.consumed({"t": A})
    assert not one.complete
    one.consumed({"t": A, "u": B})
    assert one.complete and one.rank_state() == {}
    state = json.loads(json.dumps({"sampler": {}} | one.shared_state()))
    assert known().read(state) == {"t": A, "u": B}


def test_nothing_is_known_of_labels_that_the_loop_has_not_had():
    one = known("t")
    one.consumed({})
    assert one.shared_state() == {}


def test_ranks_whose_teachers_have_inputs_of_their_own_keep_it_for_themselves():
    one = known(by_rank=True)
    one.consumed({"t": A})
    assert one.shared_state() == {}
    assert known(by_rank=True).read(one.rank_state()) == {"t": A}


@pytest.mark.parametrize("state", [{"sampler": {}}, {"epoch": 1, "batches": 2, "world_size": 1}, {}])
def test_a_state_that_says_nothing_of_teachers_expects_none(state):
    one = known()
    assert one.restored(one.read(state)) == {}


def test_what_was_restored_is_expected_and_saved_again_before_any_step():
    one = known()
    assert one.restored({"t": A}) == {"t": A}
    assert known().read(one.shared_state()) == {"t": A}
    assert not one.complete


def test_a_teacher_that_the_script_does_not_use_any_more_is_left_out():
    one = known()
    one.consumed({"t": A, "u": B})
    assert known("u").read(one.shared_state()) == {"u": B}


def test_who_extends_expects_nobody_and_is_told_once_what_has_changed(caplog):
    one = known("t", extend=True)
    assert one.restored({"t": A}) == {}
    assert known("t").read(one.shared_state()) == {"t": A}, "until there are labels of the other"
    one.consumed({"t": B})
    one.consumed({"t": B})
    (record,) = caplog.records
    assert record.getMessage() == (
        "teacher 't' is not the one that labelled for the checkpoint: weights bb instead of aa; version 2 "
        "instead of (none); codec dense:fp16 instead of dense; going on with it, as --extend says"
    )
    assert known("t").read(one.shared_state()) == {"t": B}


def test_the_same_teacher_is_not_worth_a_word(caplog):
    one = known("t", extend=True)
    one.restored({"t": A})
    one.consumed({"t": A})
    assert not caplog.records


def test_an_entry_of_another_version_is_refused():
    with pytest.raises(CheckpointError, match="says of its teachers what this version cannot read: .*later"):
        known().read({"teachers": {"t": {"model": "a:b", "codec": ["dense", {}], "later": 1}}})


def test_the_vocabulary_of_a_teacher_goes_through_a_state():
    spoken = fingerprint(vocabulary=VocabularyMark(50_257, "ab12"))
    one = known("t")
    one.consumed({"t": spoken})
    assert known("t").read(json.loads(json.dumps(one.shared_state()))) == {"t": spoken}
    other = fingerprint(vocabulary=VocabularyMark(32_000, "cd34"))
    assert other.differences(spoken) == ["vocabulary 32,000 tokens (cd34) instead of 50,257 tokens (ab12)"]
