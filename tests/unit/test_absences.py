"""When a teacher group counts as missing, and what a batch does then."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edldist.errors import ConfigError
from edldist.student.queue.absences import MOST_BETWEEN_LOOKS_S, Absences
from edldist.student.queue.flow import Flow
from edldist.student.queue.queue import LabelQueue
from edldist.student.teachers.asked_teachers import AskedTeachers
from tests.unit.queues import joined, offered


def test_a_group_is_missing_when_patience_is_over_and_until_a_worker_is_here() -> None:
    absences = Absences({"a": 2.0, "b": 5.0}, now=10.0)
    assert absences.look(11.0, {"b"}) == ({}, {})
    assert absences.look(11.9, {"b"}) == ({}, {}) and not absences.missing
    assert absences.look(12.5, {"b"}).missing == {"a": pytest.approx(1.9 + 0.6 - 0.0)}
    assert absences.missing == {"a"}
    assert absences.look(13.0, set()) == ({}, {})
    change = absences.look(13.5, {"a"})
    assert change.back == {"a": pytest.approx(3.0)} and not absences.missing
    for step in range(12):
        absences.look(14.0 + step / 2, {"a"})
    assert absences.missing == {"b"}


def test_a_group_that_comes_back_in_time_was_never_missing() -> None:
    absences = Absences({"a": 2.0}, now=0.0)
    for step in range(100):
        change = absences.look(step * 0.9, {"a"} if step % 2 else set())
        assert change == ({}, {}) and not absences.missing


def test_the_time_begins_anew_when_the_last_worker_leaves() -> None:
    absences = Absences({"a": 2.0}, now=0.0)
    absences.look(1.0, {"a"})
    absences.look(2.0, set())  # it left some time in between
    absences.look(3.0, set())
    assert not absences.missing
    assert absences.look(4.0, set()).missing == {"a": 2.0}


def test_while_this_process_stands_still_nobody_is_missed() -> None:
    absences = Absences({"a": 2.5}, now=0.0)
    absences.look(100.0, set())
    assert not absences.missing
    absences.look(100.5, set())
    assert not absences.missing  # 1.5 s of looking
    absences.look(200.0, set())
    assert absences.missing == {"a"}
    assert MOST_BETWEEN_LOOKS_S == 1.0


@given(
    looks=st.lists(st.tuples(st.floats(0.01, 1.0), st.sets(st.sampled_from("abc"))), max_size=60),
    patience=st.dictionaries(st.sampled_from("abc"), st.floats(0.1, 5.0)),
)
def test_missing_are_those_and_only_those_without_a_worker_for_so_long(looks, patience) -> None:
    absences = Absences(patience, now=0.0)
    now, gone = 0.0, dict.fromkeys(patience, 0.0)
    for passed_s, here in looks:
        before, now = absences.missing, now + passed_s
        change = absences.look(now, here)
        for group in patience:
            if group in here:
                gone[group] = None
            else:
                gone[group] = 0.0 if gone[group] is None else gone[group] + passed_s
        for group, gone_s in gone.items():
            if gone_s is None or gone_s < patience[group] - 1e-6:
                assert group not in absences.missing
            elif gone_s > patience[group] + 1e-6:
                assert group in absences.missing
        assert absences.missing == (before | change.missing.keys()) - change.back.keys()
        assert absences.missing.isdisjoint(here)


# --- the queue --------------------------------------------------------------------------------------


def queue_of(*teachers: str) -> LabelQueue:
    queue = LabelQueue(teachers)
    for teacher in teachers:
        queue.join(f"{teacher}1", teacher)
    return queue


def label(queue: LabelQueue, worker: str, samples: int, now: float = 0.0) -> None:
    for grant in queue.lease(worker, samples, now):
        queue.complete(grant.lease, now)


def test_the_head_goes_on_when_it_lacks_missing_teachers_only() -> None:
    queue = queue_of("a", "b", "c")
    queue.offer(4, 4)
    queue.leave("a1", 0.0)
    assert not queue.lacks_only({"a"})  # b and c have labelled nothing yet
    label(queue, "b1", 4)
    assert not queue.lacks_only({"a"})
    label(queue, "c1", 4)
    assert queue.lacks_only({"a"}) == {"a"} and queue.lacks_only({"a", "b"}) == {"a"}
    assert not queue.lacks_only({"b"}) and not queue.lacks_only(set())
    queue.pass_over({"a"})
    queue.validate(0.0)
    assert queue.ready() and queue.deliver() == 0
    queue.validate(0.0)


def test_samples_that_wait_for_those_of_equal_ones_lack_the_same_teacher() -> None:
    queue = joined("w")
    offered(queue, "aab")
    queue.leave("w", 0.0)
    assert queue.lacks_only({"teacher"}) == {"teacher"}


def test_what_was_leased_half_labelled_or_withheld_is_given_up_too() -> None:
    flow = Flow(max_attempts=1)
    queue = LabelQueue(["a", "b"], flow)
    queue.join("a1", "a")
    queue.join("b1", "b")
    queue.offer(6, 6)
    queue.offer(6, 6)
    first, *_ = queue.lease("a1", 2, 0.0)
    queue.complete(first.lease, 0.0)
    queue.lease("a1", 2, 0.0)
    assert not queue.lose("a1", "killed", 0.0).poison  # suspected at once, and withheld from others
    label(queue, "b1", 12)
    assert queue.lacks_only({"a"}) == {"a"}
    queue.pass_over({"a"})
    queue.validate(0.0)
    assert queue.deliver() == 0
    assert not queue.ready() and queue.lacking("a") == {1: 6}
    queue.join("a2", "a")
    label(queue, "a2", 12)
    assert queue.ready() and queue.deliver() == 1


def test_a_batch_of_which_something_is_poison_for_another_teacher_is_not_passed_over() -> None:
    queue = LabelQueue(["a", "b"], Flow(max_attempts=1))
    queue.join("b1", "b")
    queue.offer(2, 2)
    (grant,) = queue.lease("b1", 2, 0.0)
    assert queue.fail(grant.lease, "boom", 0.0).poison
    assert not queue.lacks_only({"a"}) and not queue.ready()


# --- what may be asked for --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"missing": "never"}, "use 'wait' or 'skip'"),
        ({"missing": True}, "use 'wait' or 'skip'"),
        ({"missing": None}, "use 'wait' or 'skip'"),
        ({"missing": {"a": "later"}}, "use 'wait' or 'skip'"),
        ({"missing": {"c": "skip"}}, r"there is no teacher 'c' among \['a', 'b'\]"),
        ({"missing": "skip", "missing_after_s": 0}, "missing_after_s=0: use a number of seconds above 0"),
        ({"missing": "skip", "missing_after_s": -1.0}, "missing_after_s=-1.0"),
        ({"missing": "skip", "missing_after_s": math.nan}, "missing_after_s=nan"),
        ({"missing": "skip", "missing_after_s": math.inf}, "missing_after_s=inf"),
        ({"missing": "skip", "missing_after_s": "soon"}, "missing_after_s='soon'"),
        ({"missing": "skip", "missing_after_s": True}, "missing_after_s=True"),
        ({"missing": "skip", "deterministic": True}, "a matter of timing"),
        ({"missing": {"a": "skip"}, "deterministic": True}, "a matter of timing"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        AskedTeachers.of(("a", "b"), **options)


def test_a_lone_teacher_cannot_be_skipped() -> None:
    with pytest.raises(ConfigError, match="there is one teacher"):
        AskedTeachers.of("a", missing="skip")
    assert not AskedTeachers.of("a", missing="wait").skip_after_s


def test_each_teacher_may_be_waited_for_or_skipped() -> None:
    asked = AskedTeachers.of(("a", "b"), missing={"b": "skip"}, missing_after_s=7)
    assert asked.skip_after_s == {"b": 7.0}
    assert AskedTeachers.of(("a", "b"), deterministic=True, missing={"b": "wait"}).skip_after_s == {}
