"""The process of ``edldist run`` is signalled by whoever stops the job, on any kernel, and nobody else is."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from edldist_launch.local.placement import Launcher
from edldist_launch.process.tie import start_ticks


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield started
    started.kill()
    started.wait()


def launcher(process: subprocess.Popen[bytes]) -> Launcher:
    return replace(Launcher.here(), pid=process.pid, ticks=start_ticks(process.pid))


@pytest.fixture(params=[None, errno.ENOSYS, errno.EPERM], ids=["descriptors", "old kernel", "profile"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has descriptors of processes, one that does not know them, one that does not give any."""

    def refuse(pid: int, flags: int = 0) -> int:
        raise OSError(request.param, os.strerror(request.param))

    if request.param is not None:
        monkeypatch.setattr(os, "pidfd_open", refuse)


@pytest.mark.usefixtures("kernel")
def test_it_is_signalled(process: subprocess.Popen[bytes]) -> None:
    launcher(process).signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM


@pytest.mark.usefixtures("kernel")
def test_a_process_that_was_given_its_id_is_left_alone(
    process: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, signum: sent.append(signum))
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda descriptor, signum: sent.append(signum))
    known = launcher(process)
    replace(known, ticks=known.ticks + 1).signal(signal.SIGTERM)
    assert sent == []
    known.signal(signal.SIGTERM)
    assert sent == [signal.SIGTERM]
    monkeypatch.undo()


@pytest.mark.usefixtures("kernel")
def test_one_that_has_ended_is_none(process: subprocess.Popen[bytes]) -> None:
    known = launcher(process)
    process.kill()
    process.wait()
    known.signal(signal.SIGTERM)
    assert not known.runs
