"""Workers that are well, and not what a student wants: who hears of it, and when."""

from __future__ import annotations

import pytest

from edldist.labels.grammar import parse_spec
from edldist.student.service.unsuited import PATIENCE_S
from edldist.wire.messages import Goodbye, Refused, Welcome
from tests.greetings import FINGERPRINT, fingerprint
from tests.unit.party import of, pass_time

HALF = fingerprint().__class__(model="tests.models:identify", codec=parse_spec("dense:fp16"))
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
