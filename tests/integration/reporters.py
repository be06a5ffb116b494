"""Who hears reports, driven by a test; processes that report to it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edldist.observe import reporter as reporting
from edldist.wire.messages import Ack, Event, Message, Report
from edldist.wire.transport import Hub, Sender, Transport

__all__ = ["ADDRESS", "ROOT", "Listener", "hurry", "script_in_a_job"]

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "tcp://127.0.0.1:4001"


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reporters of this process wait for less."""
    monkeypatch.setattr(reporting, "_RESEND_S", 0.1)
    monkeypatch.setattr(reporting, "_FLUSH_S", 3.0)
    monkeypatch.setattr(reporting, "_FIRST_ANSWER_S", 3.0)
    monkeypatch.setattr(reporting, "_end_expected", False)


class Listener:
    """The coordinator's end, driven by the test."""

    def __init__(self, transport: Transport, address: str = "tcp://127.0.0.1:0") -> None:
        self.poller = transport.poller()
        self.hub: Hub = self.poller.bind(address)
        self.address = self.hub.address
        self.peers: list[Sender] = []
        self._seen: set[tuple[str, int]] = set()

    def take(self, count: int, *, acknowledge: bool = True) -> list[Message]:
        taken: list[Message] = []
        deadline = time.monotonic() + 90
        while len(taken) < count:
            assert time.monotonic() < deadline, f"{len(taken)} of {count} within 60 s: {taken}"
            received = self.hub.receive()
            if received is None:
                self.poller.wait(0.05)
                continue
            taken.append(received.message)
            self.peers.append(received.sender)
            if acknowledge and isinstance(received.message, Report | Event):
                self.hub.send(received.sender, Ack(seq=received.message.seq))
        return taken

    def take_new(self, count: int) -> list[Report | Event]:
        """So many that did not come before: what is acknowledged late is sent again."""
        new: list[Report | Event] = []
        while len(new) < count:
            (message,) = self.take(1)
            assert isinstance(message, Report | Event)
            if (key := (message.reporter, message.seq)) not in self._seen:
                self._seen.add(key)
                new.append(message)
        return new

    def close(self) -> None:
        self.poller.close()


@contextlib.contextmanager
def script_in_a_job(
    script: str, listener: Listener, by_path: bool = False, stdin: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A script inside a job, which is ended and of which nothing stays open, whatever happens."""
    environment = os.environ | {"EDLDIST_COORDINATOR": listener.address, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", *([script] if by_path else ["-c", script])]
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdin=stdin, stderr=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()
            listener.close()
