"""A member's registration as a pure state machine, driven by a fake clock."""

from __future__ import annotations

import logging

import pytest

from edldist.clock import FakeClock
from edldist.errors import CoordinatorUnreachableError, ProtocolVersionError, RefusedError
from edldist.wire.enrolment import Enrolment
from edldist.wire.messages import (
    Ack,
    Event,
    Goodbye,
    Heartbeat,
    Message,
    Refused,
    Register,
    Registered,
    Unknown,
)

ADDRESS = "tcp://coordinator:7070"


class Rig:
    """One enrolment, its clock, and everything it sent with the time of sending."""

    def __init__(self, identity: str = "t-1", connect_timeout_s: float = 300.0) -> None:
        self.clock = FakeClock(start=1000.0)
        self.rejoins: list[bool] = []
        self.figures = {"done": 0}
        self.sent: list[tuple[float, Message]] = []
        self.enrolment = Enrolment(
            identity,
            self._register,
            lambda: Heartbeat(id=identity, stats=self.figures),
            ADDRESS,
            connect_timeout_s,
            self.now,
        )

    @property
    def now(self) -> float:
        return self.clock.monotonic()

    def _register(self, rejoining: bool) -> Register:
        self.rejoins.append(rejoining)
        return Register(id="t-1", role="teacher", process="p", links=[f"s-{len(self.rejoins)}"])

    def step(self) -> list[Message]:
        messages = self.enrolment.due(self.now)
        self.sent += [(self.now, message) for message in messages]
        return messages

    def run(self, seconds: float) -> None:
        """Serve as an owner does: sleep until due, at most until the end."""
        end = self.now + seconds
        while self.now < end:
            self.step()
            self.clock.advance(max(1e-6, min(self.enrolment.next_due_s(self.now), end - self.now)))

    def answer(self, message: Message) -> bool:
        return self.enrolment.on_message(message, self.now, self.clock.wall())

    def join(self, incarnation: str = "one", interval_s: float = 1.0, ttl_s: float = 3.0) -> None:
        self.step()
        assert self.answer(_registered(incarnation, interval_s, ttl_s))

    def times(self, kind: type) -> list[float]:
        return [at for at, message in self.sent if isinstance(message, kind)]


def _registered(incarnation: str = "one", interval_s: float = 1.0, ttl_s: float = 3.0) -> Registered:
    return Registered(incarnation=incarnation, heartbeat_interval_s=interval_s, heartbeat_ttl_s=ttl_s)


def _gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in zip(times, times[1:], strict=False)]


def test_it_registers_at_once() -> None:
    rig = Rig()
    assert rig.enrolment.next_due_s(rig.now) == 0
    (message,) = rig.step()
    assert isinstance(message, Register)
    assert rig.rejoins == [False]
    assert not rig.enrolment.joined and not rig.enrolment.ever_joined
    assert rig.step() == []


def test_unanswered_registrations_back_off_to_a_bound() -> None:
    rig = Rig()
    rig.run(60)
    gaps = _gaps(rig.times(Register))
    for number, gap in enumerate(gaps):
        nominal = min(0.1 * 2**number, 2.0)
        assert 0.75 * nominal <= gap <= 1.25 * nominal + 1e-5
    assert len(gaps) > 20
    assert len({round(gap, 6) for gap in gaps[6:]}) > 5, "no jitter"


def test_members_do_not_retry_in_step() -> None:
    first, second = Rig("t-1"), Rig("t-2")
    first.run(20)
    second.run(20)
    assert first.times(Register)[1:] != second.times(Register)[1:]


def test_each_registration_is_built_anew() -> None:
    rig = Rig()
    rig.run(1)
    links = [message.links for _, message in rig.sent if isinstance(message, Register)]
    assert links == [[f"s-{number}"] for number in range(1, len(links) + 1)]


def test_joining_is_told_once() -> None:
    rig = Rig()
    rig.step()
    assert rig.answer(_registered()) is True
    assert rig.enrolment.joined and rig.enrolment.ever_joined
    assert rig.enrolment.incarnation == "one"
    assert rig.answer(_registered()) is False, "an answer to a repeated registration"


def test_heartbeats_follow_the_interval_that_the_coordinator_asks_for() -> None:
    rig = Rig()
    rig.join(interval_s=0.5)
    joined_at = rig.now
    rig.run(10)
    times = rig.times(Heartbeat)
    assert 0.25 <= times[0] - joined_at <= 0.5
    assert _gaps(times) == pytest.approx([0.5] * (len(times) - 1))
    assert len(rig.times(Register)) == 1


def test_heartbeats_carry_the_figures_of_their_time() -> None:
    rig = Rig()
    rig.join()
    rig.run(1.0)
    rig.figures["done"] = 5
    rig.run(1.0)
    stats = [message.stats for _, message in rig.sent if isinstance(message, Heartbeat)]
    assert (stats[0], stats[-1]) == ({"done": 0}, {"done": 5})


def test_a_restarted_coordinator_is_joined_again_at_once_then_with_back_off() -> None:
    rig = Rig()
    rig.join("one")
    rig.run(20)
    before = len(rig.times(Register))
    assert rig.answer(Unknown()) is False
    assert not rig.enrolment.joined and rig.enrolment.ever_joined
    assert rig.enrolment.next_due_s(rig.now) == 0
    (message,) = rig.step()
    assert isinstance(message, Register)
    assert rig.rejoins[-1] is True
    rig.run(5)
    gaps = _gaps(rig.times(Register)[before:])
    assert gaps[0] <= 0.125 + 1e-5
    assert max(gaps) <= 2.5 + 1e-5
    assert rig.answer(_registered("two")) is True
    assert rig.enrolment.incarnation == "two"


def test_many_unknowns_cost_one_registration() -> None:
    """Heartbeats that waited for a coordinator to come back are each answered ``Unknown``."""
    rig = Rig()
    rig.join()
    for _ in range(50):
        rig.answer(Unknown())
        rig.step()
    assert len(rig.times(Register)) == 2


def test_a_new_incarnation_counts_as_joining_again() -> None:
    rig = Rig()
    rig.join("one")
    assert rig.answer(_registered("two")) is True


def test_a_refusal_raises_with_its_reason_and_the_address() -> None:
    rig = Rig()
    rig.step()
    with pytest.raises(RefusedError, match=f"{ADDRESS}.*the name is taken"):
        rig.answer(Refused(reason="the name is taken"))


def test_an_id_that_a_process_had_which_just_died_is_asked_for_until_it_is_free(caplog) -> None:
    rig = Rig()
    held = Refused(reason="id t-1 is held by pid 7 on host", held_for_s=3.0)
    for _ in range(4):
        rig.run(1.0)
        assert not rig.answer(held)
    assert not rig.enrolment.joined
    (warning,) = caplog.messages
    assert "is held by pid 7" in warning and "Asking again for 7 s" in warning
    rig.step()
    assert rig.answer(_registered()) and rig.enrolment.joined


def test_an_id_that_a_living_process_keeps_is_given_up() -> None:
    rig = Rig()
    held = Refused(reason="id t-1 is held by pid 7 on host", held_for_s=3.0)
    with pytest.raises(RefusedError, match="is held by pid 7"):
        for _ in range(10):
            rig.run(1.0)
            rig.answer(held)
    assert rig.now - 1000.0 >= 7.0
    assert len(rig.times(Register)) > 3


@pytest.mark.parametrize("sleeper", ["member", "coordinator"])
def test_a_refusal_from_before_a_standstill_is_no_reason_to_give_up(sleeper: str) -> None:
    """Neither misses anybody in its sleep, and the answer that is read first was given before it."""
    rig = Rig()
    held = Refused(reason="id t-1 is held by pid 7 on host", held_for_s=3.0)
    for _ in range(3):
        rig.run(1.0)
        rig.answer(held)
    if sleeper == "member":
        rig.clock.advance(60.0)
    else:
        rig.run(60.0)
    assert not rig.answer(held)
    rig.run(2.5)
    assert not rig.answer(held)
    assert rig.answer(_registered()) and rig.enrolment.joined


def test_one_that_was_written_off_does_not_ask_for_an_id_that_another_has_since() -> None:
    """Its host was cut off, and whoever starts workers has replaced it: a second self is of no use."""
    rig = Rig()
    rig.step()
    rig.answer(_registered())
    rig.answer(Unknown())
    rig.step()
    with pytest.raises(RefusedError, match=r"wrote this member off .* took its place: id t-1 is held"):
        rig.answer(Refused(reason="id t-1 is held by pid 7 on host", held_for_s=3.0))


def test_it_gives_up_when_nobody_ever_answered() -> None:
    rig = Rig(connect_timeout_s=10)
    rig.run(9.9)
    rig.clock.advance(0.2)
    with pytest.raises(CoordinatorUnreachableError, match=f"{ADDRESS}.*EDLDIST_CONNECT_TIMEOUT_S=10"):
        rig.step()


def test_what_it_slept_through_is_no_time_in_which_nobody_answered() -> None:
    rig = Rig(connect_timeout_s=10)
    rig.run(2.0)
    rig.clock.advance(3600.0)
    rig.step()
    assert rig.answer(_registered()) and rig.enrolment.joined


def test_it_never_gives_up_once_it_had_joined() -> None:
    rig = Rig(connect_timeout_s=10)
    rig.join()
    rig.run(1000)
    rig.answer(Unknown())
    rig.run(1000)
    assert rig.times(Register)[-1] > rig.now - 5


def test_silence_is_measured_from_the_last_word_of_any_kind() -> None:
    rig = Rig()
    rig.join()
    rig.clock.advance(5)
    assert rig.enrolment.silent_s(rig.now) == 5
    assert rig.answer(Ack(seq=0)) is False
    assert rig.enrolment.silent_s(rig.now) == 0


def test_waiting_is_said_soon_and_then_rarely(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(connect_timeout_s=300)
    with caplog.at_level(logging.WARNING):
        rig.run(2.9)
        assert caplog.records == []
        rig.run(2.7)  # the owner may sleep for one retry
        assert len(caplog.records) == 1
        assert ADDRESS in caplog.text
        rig.run(114.4)
    assert 4 <= len(caplog.records) <= 5


def test_silence_of_a_joined_coordinator_is_said_rarely(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.join(ttl_s=3.0)
    with caplog.at_level(logging.WARNING):
        rig.run(5.5)
        assert caplog.records == []
        rig.run(114.5)
    assert 3 <= len(caplog.records) <= 4
    assert all("going on without it" in record.message for record in caplog.records)


def test_a_coordinator_that_answers_is_no_cause_for_warnings(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.join()
    with caplog.at_level(logging.WARNING):
        for _ in range(200):
            rig.run(1)
            rig.answer(Ack(seq=0))
    assert caplog.records == []


def test_leaving_sends_the_last_figures_then_goodbye() -> None:
    rig = Rig()
    rig.join()
    rig.figures["done"] = 9
    assert rig.enrolment.leave("drained", rig.now) == [
        Heartbeat(id="t-1", stats={"done": 9}),
        Goodbye(id="t-1", reason="drained"),
    ]
    assert not rig.enrolment.joined
    assert rig.enrolment.leave("again", rig.now) == []


def test_one_who_never_joined_leaves_without_a_word() -> None:
    rig = Rig()
    rig.step()
    assert rig.enrolment.leave("interrupted", rig.now) == []


def test_one_whose_coordinator_is_gone_leaves_without_a_word() -> None:
    rig = Rig()
    rig.join(ttl_s=3.0)
    rig.run(3.5)
    assert rig.enrolment.leave("drained", rig.now) == []


def registered(rig: Rig, *, waited_s: float, skew_s: float, travelled_s: float = 0.0) -> list[Message]:
    """Join after the registration waited, and return what the member says next."""
    rig.run(0.05)
    asked = rig.clock.wall()
    rig.clock.advance(waited_s)
    theirs = rig.clock.wall() - skew_s
    rig.clock.advance(travelled_s)
    answer = Registered(
        incarnation="inc",
        heartbeat_interval_s=1.0,
        heartbeat_ttl_s=3.0,
        wall_s=theirs,
        asked_wall_s=asked,
    )
    assert rig.answer(answer)
    return [message for message in rig.step() if isinstance(message, Event)]


@pytest.mark.parametrize("skew_s", [-20.0, 20.0])
def test_a_clock_that_is_off_is_an_event(skew_s: float) -> None:
    (event,) = registered(Rig(), waited_s=0.0, skew_s=skew_s)
    assert event.event == "clock_skew"
    assert event.fields == {"id": "t-1", "host": "", "skew_s": skew_s, "coordinator": "inc"}


@pytest.mark.parametrize(("waited_s", "travelled_s"), [(600.0, 0.0), (0.0, 600.0), (600.0, 600.0)])
def test_a_registration_that_waited_for_its_coordinator_is_no_skew(waited_s, travelled_s) -> None:
    assert registered(Rig(), waited_s=waited_s, skew_s=0.0, travelled_s=travelled_s) == []


def test_clocks_that_agree_about_and_strange_ones_say_nothing() -> None:
    assert registered(Rig(), waited_s=0.0, skew_s=4.9) == []
    assert registered(Rig(), waited_s=0.0, skew_s=float("nan")) == []


OTHER = ProtocolVersionError("1", "2-ab", "the process at tcp://coordinator:7070")


@pytest.mark.parametrize("served", [False, True])
def test_a_coordinator_of_another_revision_is_an_error_for_who_would_join(served: bool) -> None:
    with pytest.raises(ProtocolVersionError):
        Rig().enrolment.misunderstood(OTHER, served)


def test_one_that_takes_over_in_mid_run_is_as_good_as_none_while_labels_flow(caplog) -> None:
    rig = Rig()
    rig.join()
    for _ in range(3):
        rig.enrolment.misunderstood(OTHER, served=True)
    assert rig.enrolment.joined
    assert caplog.text.count("another revision") == 1 and "Going on without a coordinator" in caplog.text
    with pytest.raises(ProtocolVersionError):
        rig.enrolment.misunderstood(OTHER, served=False)
