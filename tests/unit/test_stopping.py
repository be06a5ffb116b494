"""A request to stop is seen by every rank at the same step, and stays."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from edldist.lifecycle import stopping
from edldist.lifecycle.stopping import StopRequest
from edldist.signals import ASKING, OPTIONAL


class _Exchange:
    """Stands in for the process group: the other rank's byte, and the maximum of both."""

    def __init__(self, monkeypatch) -> None:
        self.other = 0
        self.calls = 0
        for name, value in (
            ("is_available", lambda: True),
            ("is_initialized", lambda: True),
            ("get_world_size", lambda: 2),
            ("get_rank", lambda: 0),
            ("new_group", lambda backend: object()),
            ("all_reduce", self.all_reduce),
        ):
            monkeypatch.setattr(stopping.dist, name, value)

    def all_reduce(self, flag, op, group, async_op):
        self.calls += 1
        flag.copy_(torch.maximum(flag, torch.tensor([self.other], dtype=torch.uint8)))
        return self

    def wait(self) -> None:
        pass


def test_sigterm_asks_and_an_earlier_handler_still_runs():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *args: seen.append("earlier"))
    try:
        request = StopRequest()
        request.install()
        assert not request()
        os.kill(os.getpid(), signal.SIGTERM)
        assert request() and request()
        assert seen == ["earlier"]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def handlers() -> Iterator[None]:
    """None of this process's own, whatever it ignores (under nohup)."""
    former = {number: signal.getsignal(number) for number in ASKING}
    for number in OPTIONAL:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", OPTIONAL)
def test_warnings_of_batch_systems_ask_as_sigterm_does(handlers: None, number: int) -> None:
    request = StopRequest()
    request.install()
    for _ in range(2):  # which changes nothing
        os.kill(os.getpid(), number)
        assert request()
    os.kill(os.getpid(), signal.SIGTERM)
    assert request()


def test_a_script_that_answers_them_itself_is_not_interfered_with(handlers: None) -> None:
    seen: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    faulthandler.register(signal.SIGHUP, file=nowhere)
    try:
        request = StopRequest()
        request.install()
        for number in OPTIONAL:
            os.kill(os.getpid(), number)
        assert seen == [signal.SIGUSR1]
        assert not request()
    finally:
        faulthandler.unregister(signal.SIGHUP)
        os.close(nowhere)


@pytest.mark.parametrize("asked_here", [True, False])
def test_every_rank_learns_it_one_call_later_and_keeps_it(monkeypatch, asked_here):
    exchange = _Exchange(monkeypatch)
    request = StopRequest()
    assert [request(), request()] == [False, False]
    if asked_here:
        request.asked = True
    exchange.other = int(not asked_here)
    assert not request()
    assert request()
    calls = exchange.calls
    assert request()
    assert exchange.calls == calls


def test_before_the_first_call_sigterm_ends_a_process_at_once():
    """There is nothing to save yet, and whoever prepares for minutes has no other way to hear of it."""
    script = "import os, signal, edldist; print('ready', flush=True); os.kill(os.getpid(), signal.SIGTERM)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=150)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "ready\n"), done.stderr
