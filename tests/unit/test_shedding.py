"""What a student does when the coordinator says that the fleet is overloaded, and when it says no more."""

from __future__ import annotations

import logging

import msgspec
import numpy as np
import pytest

from edldist.clock import FakeClock
from edldist.environment import DegradeEntry
from edldist.errors import ConfigError
from edldist.observe.overload import STEPS
from edldist.observe.troubles import troubles
from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.lookup import Lookup
from edldist.student.batch.teacher_inputs import TeacherInputs
from edldist.student.queue.flow import Flow
from edldist.student.service.delivery import Delivery
from edldist.student.service.job.shedding import SAY_EVERY_S, Shedding
from edldist.student.teachers.asked_teachers import AskedTeachers
from edldist.student.teachers.fallback import Fallback
from edldist.wire.messages import MemberStatus, Shed

torch = pytest.importorskip("torch")


def told(step: int, **more: object) -> Shed:
    return Shed(step=step, retry_after_s=5.0, **more)


def entries(text: str) -> list[DegradeEntry]:
    return [DegradeEntry.read(entry) for entry in text.split(",")]


def sent_to(teachers: list[str], place: int) -> OpenBatch:
    """A batch of four samples that one of several teachers sees."""
    none = TeacherInputs({}, 0)
    seen = TeacherInputs({"x": torch.zeros(4)}, 4)
    apart = {name: seen if at == place else none for at, name in enumerate(teachers)}
    return OpenBatch(None, {}, 4, apart=apart)


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


def test_before_the_coordinator_says_anything_time_changes_nothing():
    party = Party()
    party.shedding.look(100.0)
    assert party.reads() == 8 and party.shedding.stats(100.0) == {}


def test_one_batch_is_read_where_the_queue_may_run_empty():
    party = Party()
    party.shedding = Shedding(party.delivery, 0, None)
    party.shedding.take(told(1), 0.0)
    assert party.reads() == 1


def test_figures_are_those_of_the_moment_in_which_they_are_asked_for():
    party = Party(Fallback("big", entries("small")))
    party.shedding.take(told(4, waits="others take all", degrade=1), 10.0)
    stats = {"shed": 4, "shed_s": 2.5, "held_s": 2.5, "held_back": "others take all"}
    assert party.shedding.stats(12.5) == stats | {"degraded": 0, "degraded_to": "teacher small"}
    party.shedding.take(told(3), 13.0)
    assert party.shedding.stats(14.0) == {"shed": 3, "shed_s": 4.0, "held_s": 3.0, "degraded": 0}


def test_each_change_is_said_once(caplog: pytest.LogCaptureFixture):
    party = Party(Fallback("big", entries("small")))
    with caplog.at_level(logging.INFO):
        for second, (step, degrade) in enumerate([(1, 0), (1, 0), (2, 0), (3, 1), (3, 1), (3, 0)]):
            party.shedding.take(told(step, degrade=degrade), float(second))
    assert [record.message for record in caplog.records] == [
        *(f"the fleet is overloaded: {STEPS[step]}" for step in (1, 2, 3)),
        "batches that are read now are labelled by teacher small",
        "batches that are read now are labelled by whom the loop asks",
    ]


def test_who_waits_again_says_so_again_and_after_a_minute_why_still(caplog: pytest.LogCaptureFixture):
    party = Party()
    with caplog.at_level(logging.WARNING):
        for second, waits in enumerate(["full", "full", "", "", "full"]):
            party.shedding.take(told(4, waits=waits), float(second))
            party.shedding.look(float(second))
    assert [record.message for record in caplog.records] == [
        "reads nothing until there is room on the fleet: full",
        "there is room on the fleet after 2.0 s: reads on",
        "reads nothing until there is room on the fleet: full",
    ]


def test_a_deterministic_job_reads_as_ever():
    party = Party(fixed=True)
    party.shedding.take(told(4, waits="others take all"), 0.0)
    assert party.reads() == 8


def test_there_are_no_figures_where_there_never_was_an_overload():
    party = Party()
    party.shedding.take(told(0), 0.0)
    assert party.shedding.stats(9.0) == {}


def test_batches_that_are_read_meanwhile_go_to_the_cheaper_teacher_whole():
    fallback = Fallback("big", entries("small,tiny"))
    party = Party(fallback)
    owners = []
    for degrade in (0, 1, 2, 8, 0):
        party.shedding.take(told(3, degrade=degrade), 0.0)
        owners.append(fallback(None, 4, lambda batch, key: None))
        fallback.settle(sent_to(["big", "small", "tiny"], owners[-1][0]))
    assert np.stack(owners).tolist() == [[0] * 4, [1] * 4, [2] * 4, [2] * 4, [0] * 4]
    assert fallback.samples == 12 == party.shedding.stats(0.0)["degraded"]


def test_a_loop_that_asks_one_teacher_may_be_degraded_and_others_are_told_why_not():
    asked = AskedTeachers.of("big", degrade=entries("small"))
    assert asked.names == ("big", "small") and asked.route is asked.fallback and not asked.prefixed
    assert AskedTeachers.of("big").fallback is None
    with pytest.raises(ConfigError, match="EDLDIST_DEGRADE='small': this loop asks 'big', 'other'"):
        AskedTeachers.of(["big", "other"], degrade=entries("small"))
    with pytest.raises(ConfigError, match="leave the job's degrade out with deterministic"):
        AskedTeachers.of("big", deterministic=True, degrade=entries("small"))
    with pytest.raises(ConfigError, match="asks 'big' cannot be degraded to big: "):
        AskedTeachers.of("big", degrade=entries("big"))


def test_a_batch_that_is_read_meanwhile_has_one_codec_and_the_teacher_that_it_was_sent_to():
    fallback = Fallback("big", entries("codec=topk:16,small,codec=int8"))
    assert fallback.teachers == ("big", "small")
    assert list(map(str, fallback.chain)) == [
        "teacher big as topk:16",
        "teacher small",
        "teacher small as int8",
    ]
    assert [list(map(str, fallback.codecs_of(name))) for name in ("big", "small")] == [["topk:16"], ["int8"]]
    got = []
    for place, owner in ((0, 0), (1, 0), (2, 1), (3, 1), (3, 0), (0, 1)):
        fallback.degrade(place)
        batch = sent_to(["big", "small"], owner)
        fallback.settle(batch)
        got.append(str(batch.codec))
    assert got == ["None", "topk:16", "None", "int8", "topk:16", "None"], "the last two were read before"
    assert fallback.samples == 5 * 4


def test_labels_that_were_found_have_company_in_their_own_codec_alone():
    fallback = Fallback("big", entries("codec=topk:16"))
    fallback.degrade(1)
    for found, codec in ((3, "None"), (0, "topk:16")):
        batch = OpenBatch(None, {"x": torch.zeros(4)}, 4)
        batch.lookups["big"] = Lookup(np.zeros((4, 32), np.uint8))
        batch.lookups["big"].found = found
        fallback.settle(batch)
        assert str(batch.codec) == codec and bool(batch.lookups) == bool(found)
    assert fallback.samples == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("codec=topk:0", "codec=topk:0: no such codec"),
        ("codec=gather", "need more than any teacher's outputs"),
        ("codec=hidden", "need more than any teacher's outputs"),
        ("codec=int8,codec=int8", "each once"),
        ("small,big,codec=int8,small", "each once"),
    ],
)
def test_a_chain_that_cannot_be_is_refused(text: str, says: str):
    with pytest.raises(ConfigError, match=says):
        Fallback("big", entries(text))


def test_a_smaller_codec_alone_sends_nothing_elsewhere():
    asked = AskedTeachers.of("big", degrade=entries("codec=int8"))
    assert asked.names == ("big",) and asked.route is None and asked.fallback is not None
    assert not asked.differ_by_rank


def test_whoever_looks_at_the_job_reads_what_is_done_and_why():
    named = dict.fromkeys(("id", "role", "group", "address", "process", "host"), "x")
    stats = {"shed": 4, "held_back": "others take all", "degraded": 12}
    stats["degraded_to"] = "teacher big as int8"
    member = MemberStatus(**named, pid=1, joined_s=1.0, silent_s=0.0, links=[], info={}, stats=stats)
    assert troubles(member) == [
        "reads nothing until there is room: others take all",
        "is on an overloaded fleet: jobs of a lower priority wait",
        "had 12 samples labelled more cheaply, now by teacher big as int8",
    ]
    nonsense = msgspec.structs.replace(member, stats={"shed": 99, "held_back": "", "degraded": 0})
    assert troubles(nonsense) == []
