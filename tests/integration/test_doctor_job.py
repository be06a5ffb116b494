"""``edldist doctor --job`` on real jobs, each held up by another thing; and jobs that are not there."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from edldist.errors import CoordinatorUnreachableError
from edldist.wire.transport import Poller
from edldist.wire.zmq.transport import ZmqTransport
from edldist_launch.doctor.finding import Finding
from edldist_launch.doctor.job import examine_job
from tests.harness import LocalJob, local_job
from tests.integration.commands import ROOT
from tests.integration.members import Running, until

pytestmark = pytest.mark.timeout(180)


class Loop:
    """A training loop in a thread, whose reading and steps take as long as a test says."""

    def __init__(self, job: LocalJob, batch: int, read_s: float, step_s: float, **options: Any) -> None:
        self._read_s, self._step_s, self._batch = read_s, step_s, batch
        self._over = threading.Event()
        self.steps = 0
        self.loader = job.loader(self._batches(), "id", checkpointed=False, **options)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        until(lambda: self.steps > 5, "some steps")

    def _batches(self) -> Iterator[dict[str, torch.Tensor]]:
        while not self._over.wait(self._read_s):
            yield {"id": torch.ones(self._batch, 3)}

    def _run(self) -> None:
        for _ in self.loader:
            self.steps += 1
            self._over.wait(self._step_s)

    def end(self) -> None:
        self._over.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


def found(
    job: LocalJob, *, batch: int = 16, read_s: float = 0.0, step_s: float = 0.0, **options: Any
) -> dict[str, Finding]:
    """What the doctor says of a loop, by what it looked at; the bottleneck comes first."""
    loop = Loop(job, batch, read_s, step_s, **options)
    try:
        return {each.check: each for each in examine_job(job.address, 3.0)}
    finally:
        loop.end()


def bottleneck(findings: dict[str, Finding]) -> str:
    return next(iter(findings))


@pytest.mark.slow
def test_slow_teachers_are_found() -> None:
    with local_job() as job:
        job.teacher("takes_its_time_or_not", batch_size=16)
        findings = found(job)
    assert bottleneck(findings) == "teachers", findings


@pytest.mark.slow
def test_a_slow_step_is_found() -> None:
    with local_job() as job:
        job.teacher("identify")
        findings = found(job, step_s=0.05)
    assert bottleneck(findings) == "student steps", findings
    assert findings["student steps"].level == "ok"


@pytest.mark.slow
def test_a_slow_data_loader_is_found() -> None:
    with local_job() as job:
        job.teacher("identify")
        findings = found(job, read_s=0.05)
    assert bottleneck(findings) == "data loader", findings


@pytest.mark.slow
def test_one_slow_worker_and_small_passes_are_found() -> None:
    with local_job() as job:
        job.teacher("takes_its_time_or_not", batch_size=64, worker_id="one")
        job.teacher("takes_its_time_or_not", batch_size=64, worker_id="other")
        findings = found(job, batch=4, high_watermark=2, low_watermark=1)
    assert "in a second of computing" in findings["slow worker"].said, findings
    assert "small passes" in findings or bottleneck(findings) == "read-ahead", findings


@pytest.mark.slow
def test_a_long_way_is_found() -> None:
    with local_job(FarAway(0.05)) as job:
        job.teacher("identify", batch_size=16)
        findings = found(job, high_watermark=2, low_watermark=1)
    assert bottleneck(findings) == "network", findings
    assert "both ways" in findings["network"].said


@pytest.mark.slow
def test_the_command_prints_json_and_ends_with_the_findings_exit_code() -> None:
    with local_job() as job:
        job.teacher("identify")
        loop = Loop(job, 16, 0.0, 0.02)
        command = [sys.executable, str(ROOT / "launch" / "__main__.py"), "doctor", "--job", "--json"]
        command += ["--seconds", "2", "--coordinator", job.address]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        loop.end()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["check"] == "student steps"


def test_a_job_without_anybody_fails_in_words() -> None:
    running = Running()
    try:
        (finding,) = examine_job(running.address, 0.05)
    finally:
        running.stop()
    assert finding.level == "fail" and "no student is in the job" in finding.said


def test_no_coordinator_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edldist_launch.doctor.job.ANSWER_S", 0.2)
    with pytest.raises(CoordinatorUnreachableError, match="no coordinator answered"):
        examine_job("tcp://127.0.0.1:9", 0.05)


class FarAway(ZmqTransport):
    """A network on which whatever workers and students say to each other is late by so many seconds."""

    def __init__(self, delay_s: float) -> None:
        super().__init__(shared_memory=False)
        self._delay_s = delay_s

    def poller(self) -> Any:
        return _FarPoller(super().poller(), self._delay_s)


class _FarPoller:
    def __init__(self, poller: Poller, delay_s: float) -> None:
        self._poller = poller
        self._delay_s = delay_s
        self._ways: list[_Way] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)

    def connect(self, address: str, identity: str, to: str = "coordinator") -> Any:
        if to == "student":
            way = _Way(address, self._delay_s)
            self._ways.append(way)
            address = way.address
        return self._poller.connect(address, identity, to)

    def close(self, at_once: bool = False) -> None:
        self._poller.close(at_once)
        for way in self._ways:
            way.close()


class _Way:
    """Carries the bytes of connections to an address, each some time after it came."""

    def __init__(self, address: str, delay_s: float) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._to = (host, int(port))
        self._delay_s = delay_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._to)
                self._sockets += [near, far]
                for one, other in ((near, far), (far, near)):
                    late: queue.Queue[tuple[float, bytes]] = queue.Queue()
                    threading.Thread(target=self._read, args=(one, late), daemon=True).start()
                    threading.Thread(target=self._write, args=(other, late), daemon=True).start()

    def _read(self, source: socket.socket, late: queue.Queue[tuple[float, bytes]]) -> None:
        data = b"begin"
        with contextlib.suppress(OSError):
            while data:
                data = source.recv(1 << 16)
                late.put((time.monotonic() + self._delay_s, data))
        late.put((0.0, b""))

    def _write(self, target: socket.socket, late: queue.Queue[tuple[float, bytes]]) -> None:
        with contextlib.suppress(OSError):
            while True:
                due, data = late.get()
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                time.sleep(max(0.0, due - time.monotonic()))  # the distance that is played
                target.sendall(data)

    def close(self) -> None:
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
