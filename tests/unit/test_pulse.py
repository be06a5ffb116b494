"""What all members do, second by second, out of the counts of their heartbeats."""

from __future__ import annotations

from typing import Any

import pytest

from edldist.coordinator.course.history import MOST_GROUPS
from edldist.coordinator.course.pulse import Pulse
from edldist.coordinator.members.membership import Membership
from edldist.wire.messages import Heartbeat, Register
from edldist.wire.transport import Sender
from tests.greetings import FINGERPRINT


class Job:
    """Members that are looked at."""

    def __init__(self) -> None:
        self.members = Membership("one", 1.0, 3.0, 0.0)
        self.pulse = Pulse(1.0)

    def join(self, member_id: str, role: str, now: float = 0.0, process: str = "p", **fields: Any) -> None:
        register = Register(id=member_id, role=role, process=process + member_id, **fields)  # type: ignore[arg-type]
        self.members.register(Sender(member_id.encode()), register, now, 0.0)

    def beat(self, member_id: str, now: float, **stats: Any) -> None:
        self.members.heartbeat(Sender(member_id.encode()), Heartbeat(id=member_id, stats=stats), now)

    def look(self, now: float, wanted: int | None = None) -> dict[tuple[str, str], float]:
        return self.pulse.take(self.members.members, lambda group: wanted, now)


def teacher(job: Job, member_id: str = "t", **fields: Any) -> None:
    job.join(member_id, "teacher", group="teacher", fingerprint=FINGERPRINT, **fields)


def student(job: Job, member_id: str = "s", **fields: Any) -> None:
    job.join(member_id, "student", address="tcp://here:1", teachers=["teacher"], **fields)


def test_rates_are_those_between_heartbeats_whenever_somebody_looks() -> None:
    job = Job()
    student(job)
    teacher(job)
    for second in range(1, 5):
        job.beat("s", second + 0.01 * (-1) ** second, samples=100 * second)  # now before the look, now after
        job.beat("t", float(second), samples=300 * second)
        values = job.look(second + 0.005)
    assert values["", "samples_per_s"] == pytest.approx(100, rel=0.03)
    assert values["teacher", "samples_per_s"] == pytest.approx(300)


def test_who_is_seen_first_brings_no_spike() -> None:
    job = Job()
    student(job)
    teacher(job)
    job.beat(
        "s", 1.0, samples=1_000_000, starved_s=500.0, backpressure_s=80.0
    )  # a coordinator that restarted
    job.beat("t", 1.0, samples=2_000_000)
    assert not {("", "samples_per_s"), ("teacher", "samples_per_s")} & job.look(1.0).keys(), "no dip either"
    job.beat("s", 2.0, samples=1_000_010, starved_s=500.25, backpressure_s=80.5)
    values = job.look(2.0)
    assert (values["", "samples_per_s"], values["", "starved"], values["", "backpressure"]) == (10, 0.25, 0.5)


def test_the_next_process_of_a_name_counts_from_nothing() -> None:
    job = Job()
    student(job)
    job.beat("s", 1.0, samples=1_000)
    job.look(1.0)
    student(job, process="next", attempt=1)
    job.beat("s", 2.0, samples=5)
    assert ("", "samples_per_s") not in job.look(2.0)
    job.beat("s", 3.0, samples=9)
    assert job.look(3.0)["", "samples_per_s"] == 4


def test_a_loop_that_still_waits_starves_from_its_first_batch_on() -> None:
    job = Job()
    student(job)
    student(job, "fresh")
    for second in (1.0, 2.0):
        job.beat("s", second, batches=3, starved_s=1.0, waiting_s=second, buffered=0)
        job.beat("fresh", second, batches=0, waiting_s=second, buffered=4)
        values = job.look(second)
    assert values["", "starved"] == 1.0
    assert (values["", "buffered"], values["", "students"]) == (0, 2)
    job.beat("s", 3.0, batches=4, starved_s=3.0, waiting_s=0.0)
    assert job.look(3.0)["", "starved"] == 0


def test_who_is_silent_does_nothing() -> None:
    job = Job()
    teacher(job)
    job.beat("t", 1.0, samples=0)
    job.look(1.0)
    job.beat("t", 2.0, samples=50)
    assert job.look(2.0)["teacher", "samples_per_s"] == 50
    assert job.look(4.4)["teacher", "samples_per_s"] == 50  # its next heartbeat may only be late
    assert job.look(4.6)["teacher", "samples_per_s"] == 0


def test_workers_that_drain_are_not_counted_and_wanted_ones_are_told() -> None:
    job = Job()
    student(job)
    teacher(job)
    teacher(job, "u")
    job.beat("u", 1.0, draining=True, samples=3)
    values = job.look(1.0, wanted=4)
    assert (values["teacher", "workers"], values["teacher", "wanted"]) == (1, 4)
    assert ("teacher", "wanted") not in job.look(1.0)


def test_a_group_of_which_nobody_is_here_has_no_workers() -> None:
    job = Job()
    student(job)
    assert job.look(1.0)["teacher", "workers"] == 0


@pytest.mark.parametrize("said", ["many", None, True, -5, 1e300, 2**60])
def test_nonsense_counts_for_nothing(said: Any) -> None:
    job = Job()
    student(job)
    for second in (1.0, 2.0):
        job.beat("s", second, samples=said, starved_s=said, batches=said, waiting_s=said, buffered=said)
        values = job.look(second)
    assert values["", "samples_per_s"] == 0 and values["", "starved"] == 0 and values["", "buffered"] == 0


def test_of_several_students_all_is_counted_and_the_one_that_is_worst_off_told() -> None:
    job = Job()
    student(job)
    student(job, "u")
    for second in (1.0, 2.0):
        job.beat(
            "s", second, samples=100 * second, starved_s=0.25 * second, backpressure_s=second / 2, buffered=3
        )
        job.beat(
            "u", second, samples=50 * second, starved_s=second / 2, backpressure_s=second / 8, buffered=5
        )
        values = job.look(second)
    told = {name: value for (group, name), value in values.items() if not group}
    assert told == {"students": 2, "samples_per_s": 150, "starved": 0.5, "backpressure": 0.5, "buffered": 3}
    assert values["teacher", "samples_per_s"] == 0, "nobody is here who could give any"


def test_a_sum_is_not_told_while_one_of_its_parts_is_unknown() -> None:
    job = Job()
    teacher(job)
    job.join("o", "teacher", group="other", fingerprint=FINGERPRINT)
    for each in "abc":
        student(job, each)
    job.beat("b", 1.0, samples=7)
    job.beat("t", 1.0, samples=7)
    values = job.look(1.0)
    assert ("", "samples_per_s") not in values and ("teacher", "samples_per_s") not in values
    assert values["other", "samples_per_s"] == 0, "what it gave is known: nothing yet"
    job.beat("b", 2.0, samples=9)
    assert job.look(2.0)["", "samples_per_s"] == 2


def test_what_was_done_before_the_first_look_is_no_rate_over_all_of_time() -> None:
    job = Job()
    student(job)
    assert job.look(0.5)["", "samples_per_s"] == 0
    job.beat("s", 1.0, samples=1_000)
    assert ("", "samples_per_s") not in job.look(1.0)


def test_while_no_student_is_here_nobody_starves_and_no_buffer_is_empty() -> None:
    job = Job()
    teacher(job)
    assert {name for group, name in job.look(1.0) if not group} == {"students", "samples_per_s"}


def test_shares_of_time_lie_between_none_and_all_of_it_and_end_with_silence() -> None:
    job = Job()
    student(job)
    for second, waited_s in ((1.0, 1.0), (2.0, 9.0)):
        job.beat("s", second, starved_s=waited_s, backpressure_s=waited_s)
        values = job.look(second)
    assert values["", "starved"] == values["", "backpressure"] == 1
    values = job.look(4.6)
    assert values["", "starved"] == values["", "backpressure"] == 0
    job.beat("s", 5.0, starved_s=2.0, backpressure_s=2.0)
    values = job.look(5.0)
    assert values["", "starved"] == values["", "backpressure"] == 0, "a count that shrank is no time"


def test_a_loop_starves_from_its_first_batch_on_and_not_while_it_starts_up() -> None:
    job = Job()
    student(job)
    job.beat("s", 1.0, batches=0, waiting_s=40.0)
    job.look(1.0)
    job.beat("s", 2.0, batches=1, waiting_s=0.5)
    assert job.look(2.0)["", "starved"] == 0.5


def test_of_many_groups_the_first_by_name_are_told() -> None:
    job = Job()
    for number in reversed(range(MOST_GROUPS + 2)):
        name = f"g{number:02}"
        job.join(name, "teacher", group=name, fingerprint=FINGERPRINT)
    told = {group for group, _ in job.look(1.0)} - {""}
    assert told == {f"g{number:02}" for number in range(MOST_GROUPS)}


def test_the_largest_count_that_is_believed_is_the_largest_that_is_exact() -> None:
    job = Job()
    student(job)
    job.beat("s", 1.0, buffered=2**53 - 1)
    assert job.look(1.0)["", "buffered"] == 2**53 - 1
    job.beat("s", 2.0, buffered=2**53)
    assert job.look(2.0)["", "buffered"] == 0


def test_rates_are_per_second_however_far_apart_heartbeats_are() -> None:
    job = Job()
    student(job)
    for second in (2.0, 4.0):
        job.beat("s", second, samples=50 * second, starved_s=second / 4, backpressure_s=second / 8)
        values = job.look(second)
    told = values["", "samples_per_s"], values["", "starved"], values["", "backpressure"]
    assert told == (50, 0.25, 0.125)


def test_workers_without_a_student_are_counted_but_for_those_that_drain() -> None:
    job = Job()
    for each in "tuv":
        teacher(job, each)
    job.beat("v", 1.0, draining=True)
    assert job.look(1.0)["teacher", "workers"] == 2
