"""Which workers answer alike: numbers stand for answers, and differ by their distance."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edldist.student.queue.minds import Apart, Minds

EVERY_S = 60.0


def _apart(mine: float, its: float) -> Apart:
    return Apart(abs(mine - its), f"{abs(mine - its):g} apart")


class Group:
    """Workers that join, are asked, and answer."""

    def __init__(self) -> None:
        self.minds = Minds(_apart, EVERY_S)

    def say(self, worker: str, answer: float, *, constant: bool = False, steady: float | None = 0.0):
        """A worker answers; who is put aside (and why) or labels by that."""
        if worker not in self.minds:
            self.minds.join(worker, worker, 0.0)
        measured = None if steady is None else Apart(steady, f"{steady:g} apart")
        turns = self.minds.answered(worker, answer, constant, measured)
        self.minds.validate()
        return {turn.worker: turn.reason for turn in turns}

    def fail(self, worker: str, error: str = "NaN"):
        if worker not in self.minds:
            self.minds.join(worker, worker, 0.0)
        turns = self.minds.failed(worker, error)
        self.minds.validate()
        return {turn.worker: turn.reason for turn in turns}

    @property
    def labelling(self) -> set[str]:
        return {worker for worker in self.minds._candidates if self.minds.labels(worker)}


@pytest.fixture
def group() -> Group:
    return Group()


def test_nobody_labels_before_it_has_answered(group):
    group.minds.join("a", "a", 5.0)
    assert not group.minds.labels("a") and group.minds.due("a", 5.0)
    group.minds.asked("a")
    assert not group.minds.due("a", 1e9)
    group.minds.was_asked("a", 5.0, 6.0)
    assert not group.minds.due("a", 5.0 + EVERY_S) and group.minds.due("a", 6.0 + EVERY_S)
    assert group.say("a", 1.0) == {"a": ""} and group.labelling == {"a"}


def test_who_was_asked_in_vain_is_asked_again_at_once(group):
    group.minds.join("a", "a", 5.0)
    group.minds.asked("a")
    group.minds.ask_again("a", 7.0)
    assert group.minds.due("a", 7.0) and not group.minds.due("a", 6.9)


def test_who_has_answered_is_of_a_mind_and_who_failed_or_answers_two_ways_is_of_none(group):
    for worker in "abc":
        group.minds.join(worker, worker, 0.0)
    assert len(group.minds) == 3 and not any(map(group.minds.is_of_a_mind, "abc"))
    group.say("a", 0.0)
    group.fail("b")
    group.say("c", 0.0, steady=9.0)
    assert [group.minds.is_of_a_mind(worker) for worker in "abc"] == [True, False, False]
    group.minds.forget("b")
    assert len(group.minds) == 2


def test_who_takes_long_to_answer_is_asked_less_often(group):
    """Else a worker whose passes take longer than the pause would have nothing but questions."""
    group.say("a", 0.0)
    group.minds.was_asked("a", 0.0, 10.0)
    assert not group.minds.due("a", 10.0 + 199.0) and group.minds.due("a", 10.0 + 200.0)


def test_of_two_that_differ_the_first_labels_and_both_are_named(group):
    group.say("a", 0.0)
    (reason,) = group.say("b", 5.0).values()
    assert "it differs from worker a: 5 apart" in reason and "nobody can tell which is right" in reason
    assert "start a third" in reason and group.labelling == {"a"} and group.minds.aside("b")


def test_a_third_that_agrees_with_the_second_shows_that_the_first_was_wrong(group):
    group.say("a", 0.0)
    group.say("b", 5.0)
    turns = group.say("c", 5.5)
    assert turns["b"] == "" and turns["c"] == "" and "it differs from worker b" not in turns["b"]
    assert "does not answer any more" not in turns["a"] and "differs from worker b" in turns["a"]
    assert group.labelling == {"b", "c"}


def test_a_tie_does_not_unseat_those_that_label_and_neither_does_a_death(group):
    for worker, answer in (("a", 0.0), ("b", 0.0), ("c", 9.0), ("d", 9.0)):
        group.say(worker, answer)
    assert group.labelling == {"a", "b"}
    group.minds.forget("a")
    group.say("c", 9.0)
    assert group.labelling == {"b"}, "most at once counts, not who is left"
    group.say("e", 9.0)
    assert group.labelling == {"c", "d", "e"}, "three are more than two ever were"


def test_those_that_are_like_one_who_has_gone_are_taken_and_others_are_not(group):
    group.say("a", 0.0)
    group.minds.forget("a")
    (reason,) = group.say("b", 5.0).values()
    assert "worker a, which has gone or changed since: 5 apart" in reason and not group.labelling
    assert group.say("c", 0.5) == {"c": ""} and group.labelling == {"c"}


def test_two_that_agree_replace_one_who_has_gone(group):
    group.say("a", 0.0)
    group.minds.forget("a")
    group.say("b", 5.0)
    assert group.say("c", 5.0) == {"b": "", "c": ""}


def test_a_worker_that_differs_from_itself_is_put_aside_even_alone(group):
    (reason,) = group.say("a", 0.0, steady=3.0).values()
    assert "asked twice" in reason and "dropout" in reason and not group.labelling
    assert group.say("b", 7.0) == {"b": ""}, "and is nobody's measure"
    assert group.say("a", 7.0) == {"a": ""}


def test_a_worker_that_drifts_is_told_from_others_and_from_itself(group):
    group.say("a", 0.0)
    turns = group.minds.answered("a", 2.0, False, None)
    assert turns[0].drifted and "does not answer any more what it answered itself at first" in turns[0].reason
    group.say("b", 0.1)
    turns = group.minds.answered("b", 4.0, False, None)
    assert turns[0].drifted and "differs from worker a" in turns[0].reason and not group.labelling
    assert group.say("a", 0.2) == {"a": ""}, "welcome again when it answers as before"


def test_small_steps_add_up_to_a_drift(group):
    group.say("a", 0.0)
    assert not group.say("a", 0.6) and not group.say("a", 0.9)
    assert group.say("a", 1.2)["a"]


def test_whoever_fails_on_what_others_label_is_put_aside(group):
    assert group.fail("a", "NaN in sample 3") == {"a": ""}, "nobody knows yet whether the sample is bad"
    turns = group.say("b", 0.0)
    assert turns["b"] == "" and "fails on samples that b labels: NaN in sample 3" in turns["a"]
    assert group.labelling == {"b"}


def test_a_question_that_nobody_can_answer_is_replaced_and_accuses_nobody(group):
    group.fail("a")
    assert group.minds.unanswered
    group.minds.renewed(10.0)
    assert not group.minds.unanswered and group.labelling == {"a"}
    assert not group.minds.due("a", 10.0 + EVERY_S - 1), "not asked anew with every batch"
    group.say("b", 0.0)
    assert group.labelling == {"a", "b"} and group.minds.due("a", 10.0), "but when somebody has answered"


def test_a_constant_is_believed_only_while_there_is_nothing_else(group):
    group.say("a", 0.0, constant=True)
    assert group.labelling == {"a"}
    turns = group.say("b", 5.0)
    assert turns["b"] == "" and "differs from worker b" in turns["a"]


def test_who_was_put_aside_is_asked_again(group):
    group.say("a", 0.0)
    group.say("b", 5.0)
    group.minds.was_asked("b", 0.0, 0.0)
    assert not list(group.minds.due_aside(EVERY_S - 1)) and list(group.minds.due_aside(EVERY_S)) == ["b"]


MOVES = st.lists(
    st.tuples(
        st.sampled_from(("good", "good", "good", "bad", "fail", "leave", "unsteady")),
        st.integers(0, 5),
    ),
    max_size=60,
)


@given(MOVES)
@settings(max_examples=200, deadline=None)
def test_outliers_of_which_no_two_agree_never_label_beside_two_that_do(moves):
    group = Group()
    good: set[str] = set()
    established = False
    for what, number in moves:
        worker = f"w{number}"
        if what == "leave":
            group.minds.forget(worker)
            good.discard(worker)
            continue
        if what == "good":
            group.say(worker, 0.0)
            good.add(worker)
        else:
            good.discard(worker)
            if what == "bad":
                group.say(worker, 10.0 * (number + 1))
            elif what == "unsteady":
                group.say(worker, 0.0, steady=2.0)
            else:
                group.fail(worker)
        established = established or len(good) > 1
        if established:
            assert group.labelling == good
        else:
            answers = {group.minds._candidates[w].mind for w in group.labelling}
            assert len(answers - {None}) <= 1, "one mind labels"


def test_a_reason_says_how_many_more_agree(group):
    group.say("a", 0.0)
    group.say("b", 0.0)
    assert group.say("x", 9.0) == {"x": "it differs from worker a (as 1 more answer): 9 apart"}
    group.say("c", 0.0)
    assert group.say("y", 5.0) == {"y": "it differs from worker a (as 2 more answers): 5 apart"}
    group.minds.forget("b")
    group.minds.forget("c")
    assert group.say("z", 7.0) == {"z": "it differs from worker a: 7 apart"}


def test_what_is_just_allowed_is_alike(group):
    group.say("a", 0.0)
    assert group.say("b", 1.0, steady=1.0) == {"b": ""} and group.labelling == {"a", "b"}


def test_who_has_failed_is_like_nobody_until_it_answers(group):
    for name in "abc":
        group.say(name, 0.0)
    assert group.fail("c") == {"c": "its model fails on samples that a labels: NaN"}
    assert group.say("x", 9.0) == {"x": "it differs from worker a (as 1 more answer): 9 apart"}
    group.say("c", 0.0, steady=5.0)
    assert group.minds.aside("c").startswith("asked twice")
    assert group.fail("c") == {} and group.minds.aside("c").startswith("its model fails")


def test_a_mind_that_nobody_has_any_more_is_forgotten(group):
    group.say("a", 0.0)
    group.say("b", 0.0)
    group.say("x", 9.0)
    group.minds.forget("x")
    group.minds.validate()
    assert "differs from worker a" in group.say("y", 9.0)["y"]
    assert group.say("z", 9.0)["z"] == "it differs from worker a (as 1 more answer): 9 apart"


def test_what_was_answered_to_a_former_question_is_no_measure(group):
    group.say("a", 0.0)
    group.minds.renewed(1.0)
    group.minds.validate()
    assert group.labelling == {"a"}, "it labels on"
    assert group.say("b", 9.0) == {"b": ""} and group.labelling == {"a", "b"}
    (turn,) = group.minds.answered("a", 0.0, False, None)
    assert turn.worker == "a" and "it differs from worker b" in turn.reason and not turn.drifted


def test_who_labels_without_an_answer_is_asked_once_somebody_has_answered_and_then_as_seldom_as_others(group):
    for name in ("a", "b"):
        group.minds.join(name, name, 0.0)
        group.minds.asked(name)
        group.minds.excuse(name)
    assert group.labelling == {"a", "b"}
    group.minds.was_asked("b", 0.0, 1.0)
    group.say("b", 0.0)
    assert group.minds.due("a", 1.0) and not group.minds.due("b", 1.0)
    group.minds.was_asked("a", 1.0, 2.0)
    group.fail("a")
    assert not group.minds.due("a", 2.0) and group.minds.due("a", 2.0 + EVERY_S)


def test_who_is_put_aside_or_has_answered_needs_no_excuse(group):
    group.say("a", 0.0)
    group.say("x", 9.0)
    for name in ("a", "x"):
        group.minds.was_asked(name, 0.0, 0.0)
        group.minds.excuse(name)
    assert group.labelling == {"a"} and group.minds.aside("x")
    group.say("b", 0.0)
    assert not group.minds.due("a", 1.0) and not group.minds.due("x", 1.0), "nobody was excused"


def test_a_question_is_a_bad_one_if_somebody_failed_and_nobody_has_answered(group):
    group.minds.join("waits", "waits", 0.0)
    assert not group.minds.unanswered
    group.fail("a")
    assert group.minds.unanswered
    group.say("b", 0.0)
    assert not group.minds.unanswered


def test_an_answer_is_measured_by_that_of_its_mind(group):
    group.minds.join("new", "new", 0.0)
    group.say("a", 0.0)
    group.say("b", 0.5)
    assert group.minds.measured("b", 0.75) == (0.75, 0.0)
    assert group.minds.measured("new", 4.0) == (4.0, 4.0), "nothing is known of it"
