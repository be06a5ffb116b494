"""Which signals ask a process to stop, and who insists."""

from __future__ import annotations

import faulthandler
import signal
import subprocess
import sys
from collections.abc import Iterator
from signal import SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2

import pytest

from edldist.signals import ASKING, EXIT_STOPPED, OPTIONAL, StopWish, unclaimed


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    """Whatever this process ignores (under nohup, in the background)."""
    former = {number: signal.signal(number, signal.SIG_DFL) for number in OPTIONAL}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


def test_a_process_that_nobody_told_goes_on() -> None:
    wish = StopWish()
    assert (wish.asked, wish.asked_at, wish.insisted) == (False, None, False)


@pytest.mark.parametrize("number", ASKING)
def test_any_of_them_asks_and_none_insists_at_once(number: int) -> None:
    wish = StopWish()
    wish.told(number, 7.0)
    assert (wish.asked, wish.asked_at, wish.insisted) == (True, 7.0, False)


@pytest.mark.parametrize(
    ("sent", "insisted"),
    [
        ([(0, SIGINT), (1.5, SIGINT)], True),
        ([(0, SIGTERM), (1.5, SIGINT)], True),
        ([(0, SIGINT), (0.3, SIGINT)], False),  # a key that bounces, a wrapper that passes it on, too
        ([(0, SIGINT), (0.3, SIGINT), (1.6, SIGINT)], True),
        ([(0, SIGTERM), (0.01, SIGTERM)], False),  # Slurm at a time limit
        ([(0, SIGUSR1), (60, SIGTERM), (60.01, SIGTERM)], False),  # the same, with a warning before
        ([(0, SIGTERM), (20, SIGTERM)], False),  # the whole tree, and then the parent, which was busy
        ([(0, SIGTERM), (0.001, SIGHUP)], False),  # systemd with SendSIGHUP
        ([(0, SIGINT), (8, SIGTERM)], False),  # a runner of CI jobs that means the same
        ([(0, SIGTERM), (0.2, SIGINT), (0.4, SIGUSR2)], False),
    ],
)
def test_a_person_insists_and_a_manager_repeats_itself(
    sent: list[tuple[float, signal.Signals]], insisted: bool
) -> None:
    wish = StopWish()
    for at_s, number in sent:
        wish.told(number, 1000.0 + at_s)
    assert wish.insisted is insisted
    assert wish.asked_at == 1000.0, "what is said again puts nothing off"


def test_who_insisted_has_insisted() -> None:
    wish = StopWish()
    for at_s in (0.0, 2.0, 2.1):
        wish.told(SIGINT, at_s)
    assert wish.insisted


def test_signals_that_somebody_else_answers_are_claimed() -> None:
    assert unclaimed() == [SIGHUP, SIGUSR1, SIGUSR2]
    signal.signal(SIGHUP, signal.SIG_IGN)  # under nohup
    signal.signal(SIGUSR2, lambda *_: None)
    assert unclaimed() == [SIGUSR1]
    faulthandler.register(SIGUSR1)  # of which Python's own table knows nothing
    try:
        assert signal.getsignal(SIGUSR1) is signal.SIG_DFL
        assert unclaimed() == []
    finally:
        faulthandler.unregister(SIGUSR1)
    assert unclaimed([SIGUSR1]) == [SIGUSR1]


def test_a_process_without_handlers_ends_whoever_catches_what_is_raised_in_it() -> None:
    """As in an import of a library, which tries what is there with ``except BaseException``."""
    script = (
        "import os, signal\n"
        "from edldist.signals import end_by_signals\n"
        "end_by_signals()\n"
        "print('began')\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "except BaseException:\n"
        "    pass\n"
        "print('went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (EXIT_STOPPED, "began\n")
    assert "stopped by SIGTERM" in done.stderr
