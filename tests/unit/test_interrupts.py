"""Requests to stop, as the loops of a command see them; who insists is tested in test_signals.py."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from edldist.signals import ASKING
from edldist_launch.process import interrupts as module
from edldist_launch.process.interrupts import Interrupts


@pytest.fixture(autouse=True)
def heeding() -> Iterator[None]:
    """Whatever this process ignores (under nohup, in the background)."""
    former = {signum: signal.signal(signum, signal.SIG_DFL) for signum in ASKING}
    yield
    for signum, handler in former.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize("signum", ASKING)
def test_every_signal_that_asks_is_heard_and_one_is_enough(signum: signal.Signals) -> None:
    with Interrupts() as interrupts:
        assert not interrupts.asked
        for _ in range(3):
            os.kill(os.getpid(), signum)
        assert interrupts.asked and not interrupts.insisted
    assert all(signal.getsignal(each) is signal.SIG_DFL for each in ASKING)


def test_a_person_insists(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        now += 1.5
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.insisted and interrupts.asked_at == 1000.0


def test_what_was_ignored_from_the_start_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert not interrupts.asked


def test_who_was_not_asked_waits_a_moment_for_that() -> None:
    """Whoever ends a whole tree may have told the children first."""
    with Interrupts() as interrupts:
        later = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
        later.start()
        assert interrupts.come_as(143)
        later.join()
        assert interrupts.come_as(143)


def test_who_is_never_asked_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TOGETHER_S", 0.05)
    with Interrupts() as interrupts:
        assert not interrupts.come_as(143)
        monkeypatch.setattr(module, "_TOGETHER_S", 1000.0)
        assert not interrupts.come_as(1), "a child that failed was not asked"
