"""A worker and a student node as those see them who placed them: probes over HTTP, and the wish to leave."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edldist_launch.plan.commands import own_command
from edldist_launch.process.tie import tied_command
from tests.integration.launching import until
from tests.integration.members import Running

pytestmark = pytest.mark.timeout(240)

WITHIN_S = 90.0
ROOT = Path(__file__).resolve().parents[2]
TRAINS = """
import edldist, torch
loader = edldist.DistillLoader([{"id": torch.arange(4)}] * 1000000, "id", teacher="nobody")
print("trains", flush=True)
for batch, labels in loader:
    pass
"""


class Process:
    """An ``edldist`` command with a place for probes, and its log."""

    def __init__(self, *command: str, script: str = "") -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("EDLDIST_")}
        self.log = ""
        self._process = subprocess.Popen(
            tied_command(
                own_command(*command, "--http", "127.0.0.1:0", *filter(None, [script])), parent=os.getpid()
            ),
            env=environment | {"OMP_NUM_THREADS": "1"},
            cwd=ROOT,
            stderr=subprocess.STDOUT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        found = until(lambda: re.search(r"probes are answered at (\S+)", self.log), WITHIN_S)
        self.address = found[1]

    @property
    def pid(self) -> int:
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.log += line

    def get(self, path: str, timeout_s: float = 10.0, **headers: str) -> tuple[int, str]:
        """The status and the text of a page; what is wrong instead, if it is refused."""
        with contextlib.closing(http.client.HTTPConnection(self.address, timeout=timeout_s)) as connection:
            connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            text = response.read().decode()
        return response.status, json.loads(text)["error"] if response.status >= 400 else text

    def wait(self) -> int:
        code = self._process.wait(30)
        self._reading.join()
        return code

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reading.join()


@pytest.fixture
def address() -> str:
    """Where a coordinator was, and may come back."""
    former = Running()
    former.stop()
    return former.address


@pytest.fixture
def teacher(address: str) -> Iterator[Process]:
    made = Process("teacher", "--coordinator", address, "--model", "tests.models:identify", "--device", "cpu")
    yield made
    made.end()


@pytest.fixture
def student(address: str, tmp_path: Path) -> Iterator[Process]:
    (tmp_path / "train.py").write_text(TRAINS)
    made = Process("student", "--coordinator", address, script=str(tmp_path / "train.py"))
    yield made
    made.end()


def test_a_worker_is_alive_before_it_is_ready(teacher: Process, address: str) -> None:
    until(lambda: "is up" in teacher.log, WITHIN_S)
    until(lambda: "does not know it (yet)" in teacher.get("/readyz")[1], WITHIN_S)
    assert teacher.get("/healthz") == (200, "ok")
    running = Running(bind=address)
    try:
        until(lambda: teacher.get("/readyz") == (200, "ok"), WITHIN_S)
        assert teacher.get("/drain")[0] == 403
        assert teacher.get("/drain", X_Edldist="drain") == (200, "drained")
        assert teacher.wait() == 143 and "drained; goodbye" in teacher.log
    finally:
        running.stop()


def test_a_frozen_worker_answers_no_probe_until_it_goes_on(teacher: Process) -> None:
    until(lambda: "is up" in teacher.log, WITHIN_S)
    os.kill(teacher.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        teacher.get("/healthz", timeout_s=0.5)
    os.kill(teacher.pid, signal.SIGCONT)
    until(lambda: teacher.get("/healthz") == (200, "ok"), WITHIN_S)


def test_a_student_node_is_ready_when_its_ranks_are_part_of_the_job(student: Process, address: str) -> None:
    until(lambda: "trains" in student.log, WITHIN_S)
    assert student.get("/healthz") == (200, "ok")
    assert student.get("/readyz")[0] == 503
    running = Running(bind=address)
    try:
        until(lambda: student.get("/readyz") == (200, "ok"), WITHIN_S)
        assert student.get("/drain", X_Edldist="drain")[0] in (200, 202)
        assert student.wait() == 143
    finally:
        running.stop()
