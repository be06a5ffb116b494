"""Requests to stop, and who insists."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from edldist_launch.process import interrupts as module
from edldist_launch.process.interrupts import Interrupts

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP


@pytest.fixture(autouse=True)
def heeding() -> Iterator[None]:
    """Whatever this process ignores (under nohup, in the background)."""
    former = {signum: signal.signal(signum, signal.SIG_DFL) for signum in (INT, TERM, HUP)}
    yield
    for signum, handler in former.items():
        signal.signal(signum, handler)


@pytest.mark.parametrize(
    ("sent", "count"),
    [
        ([(0, TERM)], 1),
        ([(0, HUP)], 1),
        ([(0, INT), (1.5, INT)], 2),
        ([(0, TERM), (1.5, INT)], 2),
        ([(0, INT), (0.3, INT)], 1),  # a key that bounces, a wrapper that passes it on, too
        ([(0, INT), (0.3, INT), (1.6, INT)], 2),
        ([(0, TERM), (0.01, TERM)], 1),  # Slurm at a time limit
        ([(0, TERM), (20, TERM)], 1),  # the whole tree, and then the parent, which was busy
        ([(0, INT), (8, TERM)], 1),  # a runner of CI jobs that means the same
        ([(0, TERM), (0.2, INT), (0.4, HUP)], 1),
    ],
)
def test_a_person_insists_and_a_manager_repeats_itself(
    monkeypatch: pytest.MonkeyPatch, sent: list[tuple[float, signal.Signals]], count: int
) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: 1000.0 + now)
    with Interrupts() as interrupts:
        for at_s, signum in sent:
            now = at_s
            os.kill(os.getpid(), signum)
        assert interrupts.count == count
    assert signal.getsignal(TERM) is signal.SIG_DFL


def test_what_was_ignored_from_the_start_stays_ignored() -> None:
    signal.signal(INT, signal.SIG_IGN)
    with Interrupts() as interrupts:
        os.kill(os.getpid(), INT)
        assert interrupts.count == 0
