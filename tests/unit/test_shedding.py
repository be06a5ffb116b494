"""What a student does when the coordinator says that the fleet is overloaded, and when it says no more."""

from __future__ import annotations

import logging

import msgspec
import numpy as np
import pytest

from edldist.clock import FakeClock
from edldist.errors import ConfigError
from edldist.observe.troubles import troubles
from edldist.student.asked_teachers import AskedTeachers
from edldist.student.fallback import Fallback
from edldist.student.queue.flow import Flow
from edldist.student.service.batch import OpenBatch
from edldist.student.service.delivery import Delivery
from edldist.student.service.shedding import SAY_EVERY_S, Shedding
from edldist.wire.messages import MemberStatus, Shed

torch = pytest.importorskip("torch")


def told(step: int, **more: object) -> Shed:
    return Shed(step=step, retry_after_s=5.0, **more)


class Party:
    """A delivery with its shedding."""

    def __init__(self, fallback: Fallback | None = None, **flow: object) -> None:
        bounds = Flow(low_watermark=2, high_watermark=8, **flow)
        self.delivery = Delivery(["t"], bounds, FakeClock(), 1, 1 << 20, skip_poison=False)
        self.shedding = Shedding(self.delivery, 2, fallback)

    def reads(self) -> int:
        """How many batches are read until no more is wanted."""
        number = 0
        while self.delivery.wants_batch():
            self.delivery.offer(OpenBatch(None, {"x": torch.zeros(4)}, 4))
            number += 1
        return number


def test_less_is_read_ahead_and_as_much_as_before_once_it_is_over():
    party = Party()
    party.shedding.take(told(1), 0.0)
    assert party.reads() == 2
    party.shedding.take(told(0), 1.0)
    assert party.reads() == 6
    assert party.shedding.stats(1.0) == {"shed": 0, "shed_s": 1.0, "held_s": 0.0}


def test_a_job_that_waits_reads_nothing_and_says_why_now_and_again(caplog: pytest.LogCaptureFixture):
    party = Party()
    with caplog.at_level(logging.WARNING):
        party.shedding.take(told(4, waits="others take all"), 0.0)
        assert party.reads() == 0 and not party.delivery.wait(0.0, reading=True)
        for second in range(1, 2 * int(SAY_EVERY_S) + 1):
            party.shedding.take(told(4, waits="others take all"), float(second))
            party.shedding.look(float(second))
        party.shedding.take(told(4), 130.0)
    said = [record.message for record in caplog.records]
    assert len(said) == 4 and all("others take all" in line for line in said[:3])
    assert said[-1] == "there is room on the fleet after 130.0 s: reads on"
    assert party.reads() == 2
    assert party.shedding.stats(130.0)["held_s"] == 130.0
    assert "held_back" not in party.shedding.stats(130.0)


def test_what_is_not_said_again_is_over():
    party = Party()
    party.shedding.take(told(4, waits="others take all"), 0.0)
    party.shedding.look(4.9)
    assert party.reads() == 0
    party.shedding.look(5.0)
    assert party.reads() == 8, "the coordinator may be dead: nobody waits for it"


def test_a_deterministic_job_reads_as_ever():
    party = Party(fixed=True)
    party.shedding.take(told(4, waits="others take all"), 0.0)
    assert party.reads() == 8


def test_there_are_no_figures_where_there_never_was_an_overload():
    party = Party()
    party.shedding.take(told(0), 0.0)
    assert party.shedding.stats(9.0) == {}


def test_batches_that_are_read_meanwhile_go_to_the_cheaper_teacher_whole():
    fallback = Fallback(["big", "small", "tiny"])
    party = Party(fallback)
    owners = []
    for degrade in (0, 1, 2, 8, 0):
        party.shedding.take(told(3, degrade=degrade), 0.0)
        owners.append(fallback(None, 4, lambda batch, key: None))
    assert np.stack(owners).tolist() == [[0] * 4, [1] * 4, [2] * 4, [2] * 4, [0] * 4]
    assert fallback.samples == 12 == party.shedding.stats(0.0)["degraded"]


def test_a_loop_that_asks_one_teacher_may_be_degraded_and_others_are_told_why_not():
    asked = AskedTeachers.of("big", degrade=("small",))
    assert asked.names == ("big", "small") and asked.route is asked.fallback and not asked.prefixed
    assert AskedTeachers.of("big").fallback is None
    with pytest.raises(ConfigError, match="EDLDIST_DEGRADE='small': this loop asks 'big', 'other'"):
        AskedTeachers.of(["big", "other"], degrade=("small",))
    with pytest.raises(ConfigError, match="leave the job's degrade out with deterministic"):
        AskedTeachers.of("big", deterministic=True, degrade=("small",))
    with pytest.raises(ConfigError, match="asks 'big' cannot be degraded to 'big'"):
        AskedTeachers.of("big", degrade=("big",))


def test_whoever_looks_at_the_job_reads_what_is_done_and_why():
    named = dict.fromkeys(("id", "role", "group", "address", "process", "host"), "x")
    stats = {"shed": 4, "held_back": "others take all", "degraded": 12}
    member = MemberStatus(**named, pid=1, joined_s=1.0, silent_s=0.0, links=[], info={}, stats=stats)
    assert troubles(member) == [
        "reads nothing until there is room: others take all",
        "is on an overloaded fleet: jobs of a lower priority wait",
        "sent 12 samples to a cheaper teacher",
    ]
    nonsense = msgspec.structs.replace(member, stats={"shed": 99, "held_back": "", "degraded": 0})
    assert troubles(nonsense) == []
