"""The coordinator's side of the rendezvous store: started when asked for, started anew when lost."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edldist.coordinator.rendezvous import RendezvousHost


class Stage:
    """A host whose store is any process, and listens when the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.listens = False
        self.started = 0
        self.host = RendezvousHost("tcp://127.0.0.1:7070", None)
        monkeypatch.setattr(self.host, "_listening", lambda: self.listens)
        popen = subprocess.Popen

        def start(*command: object, **options: object) -> subprocess.Popen[bytes]:
            self.started += 1
            self.process = popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
            return self.process

        monkeypatch.setattr("edldist.coordinator.rendezvous.subprocess.Popen", start)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.listens = False


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch):  # noqa: ANN201
    stage = Stage(monkeypatch)
    yield stage
    stage.host.close()


def test_a_store_is_started_once_and_named_when_it_listens(stage: Stage) -> None:
    assert stage.host.ask(0.0).address == "" == stage.host.ask(1.0).address
    assert stage.started == 1
    stage.listens = True
    assert stage.host.ask(2.0).address == "127.0.0.1:7072"


def test_a_store_that_worked_and_was_lost_is_started_anew(stage: Stage) -> None:
    stage.host.ask(0.0)
    stage.listens = True
    stage.host.ask(1.0)
    stage.kill()
    answer = stage.host.ask(2.0)
    assert (answer.address, answer.error, stage.started) == ("", "", 2)
    stage.listens = True
    assert stage.host.ask(3.0).address == "127.0.0.1:7072"


def test_a_store_that_never_worked_is_an_error(stage: Stage) -> None:
    stage.host.ask(0.0)
    stage.kill()
    assert "ended with exit code -9" in stage.host.ask(1.0).error
    assert stage.started == 1
