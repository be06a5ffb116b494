"""A student's service whose batches may come back in a smaller codec."""

from __future__ import annotations

from typing import Any

import pytest

from edldist.environment import DegradeEntry
from edldist.errors import UnsuitableTeacherError
from edldist.student.teachers.fallback import Fallback
from edldist.wire.messages import Refused


def fallback() -> Fallback:
    return Fallback("teacher", [DegradeEntry.read("codec=topk:2")])


def test_a_batch_is_settled_as_it_is_offered(party: Any) -> None:
    chain = fallback()
    job = party(fallback=chain)
    for steps, samples in ((0, 0), (1, 4)):
        chain.degrade(steps)
        job.offer(4)
        assert chain.samples == samples


def test_a_worker_that_cannot_send_the_smaller_codec_ends_the_loop(party: Any) -> None:
    job = party(fallback=fallback())
    job.worker("w").say(Refused(reason="its outputs are no distributions"))
    with pytest.raises(UnsuitableTeacherError, match=r"no distributions\. Change the job's degrade"):
        job.delivery.wait(0.0, reading=False)


def test_what_a_worker_refuses_where_nothing_is_degraded_means_nothing(party: Any) -> None:
    job = party()
    job.worker("w").say(Refused(reason="whatever"))
    assert not job.delivery.wait(0.0, reading=False)
    assert job.service.teachers() == 1


def test_a_greeting_is_no_refusal_where_batches_are_degraded(party: Any) -> None:
    job = party(fallback=fallback())
    worker = job.worker("w")
    worker.say(worker.greeted[0])
    assert not job.delivery.wait(0.0, reading=False)
