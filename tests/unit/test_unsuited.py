"""Workers that are well, and not what a student wants: who hears of it, and when."""

from __future__ import annotations

import pytest

from edldist.labels.grammar import parse_spec
from edldist.student.service.unsuited import PATIENCE_S, Unsuited
from edldist.wire.messages import Goodbye, Refused, Welcome
from edldist.wire.transport import Sender
from tests.greetings import FINGERPRINT, fingerprint
from tests.unit.party import of, pass_time

HALF = fingerprint().__class__(model="tests.models:identify", codec=parse_spec("dense:fp16"))
TOP = fingerprint().__class__(model="tests.models:identify", codec=parse_spec("topk:4"))
WANTS_HALF = {"codecs": {"teacher": parse_spec("dense:fp16")}}


def test_a_worker_of_another_codec_stays_and_the_student_is_told_once_its_patience_ends(party):
    job = party(**WANTS_HALF)
    worker = job.worker("a")
    (refused,) = worker.greeted
    assert isinstance(refused, Refused) and not refused.incompatible
    pass_time(job, PATIENCE_S - 0.5)
    assert job.service.unsuited(0.0) == ""
    pass_time(job, 2.0)
    assert "worker a sends codec dense; this student takes labels" in job.service.unsuited(0.0)
    assert job.service.unsuited(job.clock.monotonic()) == "", "seen before"
    assert of(Refused, worker), "it was asked whether it is here"


def test_one_that_suits_makes_it_well_again(party):
    job = party(**WANTS_HALF)
    job.worker("a")
    pass_time(job, PATIENCE_S + 2.0)
    assert job.service.unsuited(0.0)
    right = job.worker("b", fingerprint=HALF)
    assert isinstance(right.greeted[0], Welcome)
    pass_time(job, 2.0, right)
    assert job.service.unsuited(0.0) == ""
    right.say(Goodbye(id="b"))
    pass_time(job, 2.0)
    assert "worker a sends codec dense" in job.service.unsuited(0.0)


def test_workers_that_are_gone_do_not_speak_for_their_group(party):
    job = party(**WANTS_HALF)
    worker = job.worker("a")
    pass_time(job, 1.0)
    worker.link.close()
    pass_time(job, PATIENCE_S + 2.0)
    assert job.service.unsuited(0.0) == ""


def test_all_that_stay_are_counted(party):
    job = party(**WANTS_HALF)
    for name in ("a", "b", "c"):
        job.worker(name)
    pass_time(job, PATIENCE_S + 2.0)
    assert "So are 2 others" in job.service.unsuited(0.0)


@pytest.mark.parametrize("other", [HALF, fingerprint("nonsense")])
def test_workers_unlike_the_others_of_their_group_say_nothing_of_it(party, other):
    job = party()
    right = job.worker("right", fingerprint=FINGERPRINT)
    job.worker("other", fingerprint=other)
    pass_time(job, PATIENCE_S + 2.0, right)
    assert job.service.unsuited(0.0) == "" and job.service.teachers() == 1


def test_a_codec_that_this_version_does_not_know_is_this_student_s_affair(party):
    job = party()
    (refused,) = job.worker("a", fingerprint=fingerprint("nonsense")).greeted
    assert isinstance(refused, Refused) and not refused.incompatible
    pass_time(job, PATIENCE_S + 2.0)
    assert "worker a of teacher 'teacher': no such codec 'nonsense'" in job.service.unsuited(0.0)


def test_teachers_whose_labels_are_one_set_need_one_codec_and_both_are_named(party):
    job = party(teachers=("law", "code"), one_set=True)
    right = job.worker("right", teacher="law", fingerprint=TOP)
    (refused,) = job.worker("other", teacher="code", fingerprint=HALF).greeted
    assert isinstance(refused, Refused) and not refused.incompatible, "it is of use to others"
    says = (
        "worker other of teacher 'code' sends codec dense:fp16, and teacher 'law' sends topk:4: samples are"
    )
    assert refused.reason.startswith(says)
    third = job.worker("third", teacher="code", fingerprint=TOP)
    assert isinstance(third.greeted[0], Welcome)
    pass_time(job, PATIENCE_S + 2.0, right, third)
    assert job.service.unsuited(0.0) == "", "somebody of it is taken"


def test_nobody_of_the_right_codec_ends_the_loop(party):
    job = party(teachers=("law", "code"), one_set=True)
    right = job.worker("right", teacher="law", fingerprint=TOP)
    job.worker("other", teacher="code", fingerprint=HALF)
    pass_time(job, PATIENCE_S + 2.0, right)
    assert "codec dense:fp16, and teacher 'law' sends topk:4" in job.service.unsuited(0.0)


def test_teachers_whose_labels_are_apart_may_have_any_codecs(party):
    job = party(teachers=("law", "code"))
    job.worker("one", teacher="law", fingerprint=TOP)
    assert not isinstance(job.worker("two", teacher="code", fingerprint=HALF).greeted[0], Refused)


def test_nothing_is_unsuited_at_the_begin(party):
    assert party().service.unsuited(0.0) == ""


# --- by itself --------------------------------------------------------------------------------------------


class Door:
    """What a student knows of those that it refused, and who is still there."""

    def __init__(self, *names: str, teacher: str = "t") -> None:
        self.unsuited = Unsuited()
        self.asked: list[bytes] = []
        self.here = {name.encode() for name in names}
        for name in names:
            self.refuse(name, teacher)

    def refuse(self, name: str, teacher: str = "t", now: float = 0.0) -> None:
        self.unsuited.refused(Sender(name.encode()), teacher, Refused(reason=f"{name} is another"), now)

    def reach(self, peer: Sender, refusal: Refused) -> bool:
        self.asked.append(peer.route)
        return peer.route in self.here

    def verdict(self, now: float, *served_by: str) -> str | None:
        return self.unsuited.verdict(served_by, now, self.reach)


def test_a_look_is_taken_once_a_second():
    door = Door("a")
    assert door.verdict(PATIENCE_S + 1.0)
    assert door.verdict(PATIENCE_S + 1.9) is None and door.asked == [b"a"]
    assert door.verdict(PATIENCE_S + 2.0) and door.asked == [b"a", b"a"]


def test_the_first_look_is_taken_whenever_it_comes():
    assert Door().verdict(0.0) == ""


def test_one_that_came_later_or_whose_group_is_served_hides_no_other():
    door = Door("a", teacher="served")
    door.refuse("b", now=PATIENCE_S)
    door.refuse("c")
    door.here |= {b"b", b"c"}
    assert "c is another" in (door.verdict(PATIENCE_S, "served") or "")
    assert door.asked == [b"c"]


def test_one_that_has_gone_hides_no_other_and_is_not_counted_again():
    door = Door("a", "b")
    door.here = {b"b"}
    told = door.verdict(PATIENCE_S) or ""
    assert "b is another" in told and "others" not in told
    door.verdict(PATIENCE_S + 1.0)
    assert door.asked == [b"a", b"b", b"b"]


def test_one_that_greets_anew_is_judged_anew():
    door = Door("a")
    door.unsuited.greeted(Sender(b"a"))
    assert door.verdict(PATIENCE_S) == "" and door.asked == []


def test_patience_is_over_when_its_time_is():
    assert "a is another" in (Door("a").verdict(PATIENCE_S) or "")
