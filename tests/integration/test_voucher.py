"""The process beside a worker vouches for it while it is silent, is there, and is not stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from edldist.errors import ModelError
from edldist.signals import ASKING
from edldist.teacher import worker as worker_module
from edldist.teacher.worker import WorkerOptions
from edldist.wire.messages import Vouch
from edldist.wire.voucher import Voucher, lives, start_ticks
from edldist.wire.zmq.transport import ZmqTransport
from edldist_launch.process.tie import tied_command
from tests.fault.harness import wait_for

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="vouchers look into /proc"),
]

WORKER = """
import sys, threading
from edldist.wire.voucher import Voucher
voucher = Voucher()
voucher.start("w", "its-process")
voucher.alive([sys.argv[1]], 0.6)
print(voucher.pid, flush=True)
for line in sys.stdin:
    voucher.alive([sys.argv[1]], 0.6)
    print("told", flush=True)
voucher.close()
print("closed", flush=True)
"""


class Listener:
    """Whoever counts the worker's silence."""

    def __init__(self) -> None:
        self._poller = ZmqTransport(tensors=False).poller()
        self.hub = self._poller.bind("tcp://127.0.0.1:0")

    def heard(self, for_s: float) -> list[object]:
        """All that comes within some time."""
        end, found = time.monotonic() + for_s, []
        while (left_s := end - time.monotonic()) > 0:
            self._poller.wait(left_s)
            while (received := self.hub.receive()) is not None:
                found.append(received.message)
        return found

    def await_vouch(self) -> None:
        wait_for("a vouch", lambda: Vouch(id="w", process="its-process") in self.heard(0.1))

    def close(self) -> None:
        self._poller.close(at_once=True)


@pytest.fixture
def listener() -> Iterator[Listener]:
    with contextlib.closing(Listener()) as made:
        yield made


@pytest.fixture
def worker(listener: Listener) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", WORKER, listener.hub.address]
    process = subprocess.Popen(
        tied_command(command, parent=os.getpid(), signum=signal.SIGKILL),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def say_alive(worker: subprocess.Popen[str]) -> None:
    assert worker.stdin is not None and worker.stdout is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    assert worker.stdout.readline() == "told\n"


def voucher_of(worker: subprocess.Popen[str]) -> psutil.Process:
    assert worker.stdout is not None
    return psutil.Process(int(worker.stdout.readline()))


def test_it_inherits_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody")
    voucher = Voucher()
    voucher.start("w", "its-process")
    try:
        environ = Path(f"/proc/{voucher.pid}/environ")
        wait_for("its variables", lambda: b"PATH=" in environ.read_bytes())
        assert b"hf_of_somebody" not in environ.read_bytes()
    finally:
        voucher.close()


def test_a_silent_worker_is_vouched_for_until_it_speaks(listener, worker):
    voucher_of(worker)
    listener.await_vouch()
    say_alive(worker)
    listener.heard(0.05)  # what was on its way
    say_alive(worker)
    assert listener.heard(0.1) == []
    listener.await_vouch()


def test_a_stopped_worker_is_not_vouched_for(listener, worker):
    voucher_of(worker)
    listener.await_vouch()
    worker.send_signal(signal.SIGSTOP)
    ticks = start_ticks(worker.pid)
    wait_for("the worker to be stopped", lambda: lives(worker.pid, ticks) is False)
    listener.heard(0.2)  # what was on its way
    assert listener.heard(1.0) == []
    worker.send_signal(signal.SIGCONT)
    listener.await_vouch()


@pytest.mark.parametrize("number", ASKING)
def test_a_voucher_outlasts_signals_that_ask_its_worker_to_leave(listener, worker, number):
    voucher = voucher_of(worker)
    listener.await_vouch()
    voucher.send_signal(number)
    listener.heard(0.1)
    listener.await_vouch()


def test_a_voucher_ends_with_its_worker(listener, worker):
    voucher = voucher_of(worker)
    listener.await_vouch()
    worker.kill()
    wait_for("the voucher to end", lambda: not voucher.is_running() or voucher.status() == "zombie")


def test_a_worker_that_leaves_ends_its_voucher(worker):
    voucher = voucher_of(worker)
    worker.stdin.close()
    assert worker.stdout.readline() == "closed\n"
    assert not voucher.is_running()


def test_a_worker_whose_voucher_was_killed_goes_on_and_says_so_once(listener, caplog):
    with contextlib.closing(Voucher()) as voucher:
        voucher.start("w", "p")
        voucher.alive([listener.hub.address], 3.0)
        os.kill(voucher.pid, signal.SIGKILL)
        wait_for("it to die", lambda: psutil.Process(voucher.pid).status() == "zombie")
        for _ in range(3):
            voucher.alive([listener.hub.address], 3.0)
        assert voucher.pid is None
    assert caplog.text.count("the process that vouches for this worker is gone (exit code -9)") == 1


def test_a_process_is_told_by_its_start_and_by_its_state():
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE)
    ticks = start_ticks(child.pid)
    assert lives(child.pid, ticks) is True
    assert lives(child.pid, ticks + 1) is None, "another process under that id"
    child.kill()
    wait_for("a zombie", lambda: lives(child.pid, ticks) is None)
    child.communicate()
    assert (lives(child.pid, ticks), start_ticks(child.pid)) == (None, 0)


def test_a_voucher_is_there_before_the_model_that_it_is_for(monkeypatch):
    """It takes a while to start, and the first pass may be the longest."""
    begun = []

    def load_teacher(options):
        begun.append(("model", options.worker_id))
        raise ModelError("there is none")

    monkeypatch.setattr(Voucher, "start", lambda self, member, *_: begun.append(("voucher", member)))
    monkeypatch.setattr(worker_module, "load_teacher", load_teacher)
    with pytest.raises(ModelError):
        worker_module.run_worker(WorkerOptions(model="m:m", coordinator="tcp://127.0.0.1:1"))
    (first, member), (second, of_model) = begun
    assert (first, second) == ("voucher", "model") and member == of_model
