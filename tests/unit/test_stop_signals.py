"""A process leaves when it is told to, whatever its main thread is in."""

from __future__ import annotations

import os
import queue
import signal
import threading

import pytest

from edldist.signals import OPTIONAL
from edldist.teacher.stop_signals import StopSignals

pytestmark = pytest.mark.timeout(240)


class Leaver:
    """Notes what it is asked, in the order of things."""

    def __init__(self, said: queue.SimpleQueue) -> None:
        self.said = said
        self.may_leave = threading.Event()
        self.may_leave.set()

    def drain(self) -> None:
        self.said.put("drain")

    def abandon(self) -> None:
        self.said.put("abandon")
        self.may_leave.wait(20)


@pytest.fixture
def said() -> queue.SimpleQueue:
    return queue.SimpleQueue()


@pytest.fixture
def leaver(said) -> Leaver:
    return Leaver(said)


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def next_of(said: queue.SimpleQueue):
    """What came next. Waits in one call of C, in which no signal handler of Python's runs."""
    return said.get(timeout=150)


def test_a_signal_before_there_is_anything_to_leave_ends_the_process_at_once(said):
    with StopSignals(60, 0.0, said.put):
        send()
        assert next_of(said) == 143


def test_a_signal_drains_and_a_main_thread_that_ends_ends_it(said, leaver):
    with StopSignals(60, 0.0, said.put) as signals:
        signals.serve(leaver)
        send(signal.SIGINT)
        assert next_of(said) == "drain"
    assert said.empty()


def test_what_has_not_ended_when_time_is_up_is_left(said, leaver):
    with StopSignals(0.05, 0.0, said.put) as signals:
        signals.serve(leaver)
        send()
        assert [next_of(said) for _ in range(3)] == ["drain", "abandon", 143]


def test_a_person_who_insists_ends_the_process_at_once(said, leaver):
    with StopSignals(60, 0.0, said.put) as signals:
        signals.serve(leaver)
        send()
        assert next_of(said) == "drain"
        send(signal.SIGINT)
        assert next_of(said) == 130


def test_a_manager_that_repeats_itself_has_one_wish(said, leaver):
    with StopSignals(0.3, 0.0, said.put) as signals:
        signals.serve(leaver)
        for _ in range(3):
            send(signal.SIGTERM)
        assert [next_of(said) for _ in range(3)] == ["drain", "abandon", 143]


def test_a_ctrl_c_that_follows_at_once_does_not_insist(said, leaver):
    with StopSignals(0.3, 60, said.put) as signals:
        signals.serve(leaver)
        for _ in range(3):
            send(signal.SIGINT)
        assert [next_of(said) for _ in range(3)] == ["drain", "abandon", 143]


def test_a_person_who_insists_ends_a_process_that_cannot_even_leave(said, leaver):
    leaver.may_leave.clear()
    with StopSignals(0.05, 0.0, said.put) as signals:
        signals.serve(leaver)
        send()
        assert [next_of(said) for _ in range(2)] == ["drain", "abandon"]
        send(signal.SIGINT)
        assert next_of(said) == 130
    leaver.may_leave.set()


def test_signals_with_handlers_of_their_own_are_no_reason_to_leave(said, leaver):
    former = signal.signal(signal.SIGUSR1, lambda *_: said.put("usr1"))
    try:
        with StopSignals(60, 0.0, said.put) as signals:
            signals.serve(leaver)
            send(signal.SIGUSR1)
            assert next_of(said) == "usr1"
            send()
            assert next_of(said) == "drain"
            send(signal.SIGUSR1)
            assert next_of(said) == "usr1"
        assert said.empty()
    finally:
        signal.signal(signal.SIGUSR1, former)


@pytest.mark.parametrize("number", OPTIONAL)
def test_warnings_of_batch_systems_drain_too(said, leaver, number):
    former = signal.signal(number, signal.SIG_DFL)
    try:
        with StopSignals(60, 0.0, said.put) as signals:
            signals.serve(leaver)
            send(number)
            assert next_of(said) == "drain"
            send(signal.SIGTERM)  # which follows, and insists on nothing
        assert said.empty()
    finally:
        signal.signal(number, former)


def test_a_model_that_answers_one_itself_since_it_was_loaded_keeps_it(said, leaver):
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    try:
        with StopSignals(60, 0.0, said.put) as signals:
            signal.signal(signal.SIGUSR1, lambda *_: said.put("usr1"))
            signals.serve(leaver)
            send(signal.SIGUSR1)
            assert next_of(said) == "usr1"
            send()
            assert next_of(said) == "drain"
        assert said.empty()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_library_that_takes_the_interpreters_descriptor_does_not_make_it_deaf(said, leaver):
    with StopSignals(60, 0.0, said.put) as signals:
        signals.serve(leaver)
        taken = signal.set_wakeup_fd(-1)
        try:
            signal.raise_signal(signal.SIGTERM)
            assert next_of(said) == "drain"
            signal.raise_signal(signal.SIGINT)
            assert next_of(said) == 130
        finally:
            signal.set_wakeup_fd(taken)


def test_handlers_and_descriptor_are_those_of_before_when_it_is_over(said):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopSignals(60, 0.0, said.put):
        assert signal.getsignal(signal.SIGTERM) is not before[0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    former = signal.set_wakeup_fd(-1)
    assert former == -1
