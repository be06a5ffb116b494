"""Reports of a process and its forks arrive, however and in whichever order these end."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edldist.observe import reporter as reporting
from edldist.observe.reporter import Reporter
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import Ack, Report, encode
from edldist.wire.zmq.transport import ZmqTransport
from tests.integration.reporters import ADDRESS, ROOT, Listener, hurry, script_in_a_job


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    hurry(monkeypatch)


@pytest.fixture
def network() -> MemoryTransport:
    return MemoryTransport()


_SCRIPT = """
import os, sys
import edldist
from edldist.observe.reporter import event
edldist.report(step=1, loss=0.5)
event("note", text="parent")
if os.fork() == 0:
    edldist.report(step=2)
    {}
os.wait()
edldist.report(step=3)
"""


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_reports_of_a_process_and_its_fork_arrive_before_they_exit(end: str) -> None:
    listener = Listener(ZmqTransport())
    script = _SCRIPT.format(end)
    with script_in_a_job(script, listener) as process:
        messages = listener.take_new(4)
        _, errors = process.communicate(timeout=150)
        assert process.returncode == 0, errors.decode()
        assert {m.values["step"] for m in messages if isinstance(m, Report)} == {1, 2, 3}
        assert sorted(m.seq for m in messages) == [1, 2, 3, 4], "numbered by one process"
        assert b"Traceback" not in errors


_ORPHAN = """
import os, sys, time
import edldist
edldist.report(step=1)
read_end, write_end = os.pipe()
if os.fork() == 0:
    os.read(read_end, 1)  # until the parent has ended
    edldist.report(step=2)
    sys.exit(0)
os.set_inheritable(write_end, False)
"""


def test_a_fork_that_outlives_its_parent_reports_by_itself() -> None:
    listener = Listener(ZmqTransport())
    script = _ORPHAN.replace("os.read(read_end", "os.close(write_end); os.read(read_end")
    with script_in_a_job(script, listener):
        messages = listener.take_new(2)
        assert [m.values["step"] for m in messages] == [1, 2]
        assert messages[0].reporter != messages[1].reporter


_KILLED = """
import os, select, signal
import edldist
edldist.report(step=1)
parent = os.getpid()
watch = os.pidfd_open(parent)
if os.fork() == 0:
    select.select([watch], [], [])  # until the parent has ended, and all that it had is closed
    edldist.report(step=2)
    os._exit(0 if edldist.observe.reporter._reporter.close() else 1)
os.read(0, 1)
os.kill(parent, signal.SIGKILL)
"""


def test_a_fork_of_a_process_that_was_killed_reports_by_itself() -> None:
    """Nobody closed anything for it: it must not be its own copy of the inbox into which it speaks."""
    listener = Listener(ZmqTransport())
    with script_in_a_job(_KILLED, listener, stdin=subprocess.PIPE) as process:
        listener.take_new(1)
        assert process.stdin is not None
        process.stdin.close()
        assert [m.values["step"] for m in listener.take_new(1)] == [2]


def handed_over(reporter: Reporter, step: int) -> None:
    """As a fork does, but nobody is woken."""
    reporter._outbox.send(encode(Report(reporter="", seq=0, rank=0, t=0.0, values={"step": step})))


def test_what_a_fork_has_handed_over_when_its_parent_ends_is_sent(
    network: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "_RESEND_S", 60.0)
    listener = Listener(network, ADDRESS)
    reporter = Reporter(ADDRESS, 0, network)
    reporter.start()
    reporter.report({"step": 1})
    listener.take(1)
    handed_over(reporter, 2)
    with ThreadPoolExecutor() as pool:
        closed = pool.submit(reporter.close)
        (last,) = listener.take(1)
        assert closed.result(60)
    assert isinstance(last, Report) and last.values["step"] == 2
    listener.close()


def test_a_process_that_ends_takes_nothing_of_forks_any_more(
    network: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they handed over between its last look and its end would be lost."""
    monkeypatch.setattr(reporting, "_FIRST_ANSWER_S", 100.0)
    listener = Listener(network, ADDRESS)
    reporter = Reporter(ADDRESS, 0, network)
    reporter.start()
    reporter.report({"step": 1})
    (first,) = listener.take(1, acknowledge=False)
    assert isinstance(first, Report) and not reporter.close(timeout_s=0.0), "it waits for an answer"
    deadline = time.monotonic() + 90
    with pytest.raises(OSError):
        while time.monotonic() < deadline:
            handed_over(reporter, 2)
            listener.take(1, acknowledge=False)  # it comes round
    assert reporter._thread.is_alive()
    listener.hub.send(listener.peers[0], Ack(seq=1_000_000))
    assert reporter.close()
    listener.close()


_WORKERS = """
import multiprocessing, sys
import edldist
def work(step):
    edldist.report(step=step)
if __name__ == "__main__":
    edldist.report(step=0)
    for step, method in enumerate(("fork", "spawn"), 1):
        worker = multiprocessing.get_context(method).Process(target=work, args=(step,))
        worker.start()
        worker.join()
"""


def test_reports_of_worker_processes_arrive_though_these_run_no_exit_handlers(tmp_path: Path) -> None:
    listener = Listener(ZmqTransport())
    script = tmp_path / "script.py"
    script.write_text(_WORKERS)
    with script_in_a_job(str(script), listener, by_path=True):
        assert sorted(m.values["step"] for m in listener.take_new(3)) == [0, 1, 2]  # of three processes


_BUSY_FORKS = """
import os, sys, threading
import edldist
from edldist.observe import reporter as reporting
edldist.report(step=0)
reporting._made.acquire()  # as another thread may at the moment of a fork
reporting._reporter._lock.acquire()
child = os.fork()
if child == 0:
    edldist.report(step=1)
    os._exit(0)
reporting._reporter._lock.release()
reporting._made.release()
os.waitpid(child, 0)
"""


def test_a_fork_waits_for_no_lock_that_its_parent_held() -> None:
    listener = Listener(ZmqTransport())
    with script_in_a_job(_BUSY_FORKS, listener) as process:
        assert sorted(m.values["step"] for m in listener.take_new(2)) == [0, 1]  # of two processes
        assert process.wait(60) == 0


def test_a_process_that_was_asked_to_end_waits_no_longer_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a coordinator that may have been asked, too; nor does its socket linger for one."""
    monkeypatch.setattr(reporting, "_FIRST_ANSWER_S", 30.0)
    monkeypatch.setattr(reporting, "_HURRIED_S", 0.2)
    reporter = Reporter("tcp://127.0.0.1:9", 0)
    reporter.start()
    reporter.report({"step": 1})
    reporting.expect_end()
    began = time.monotonic()
    assert not reporter.close()
    assert time.monotonic() - began < 1.5


_LARGE_AND_LAST = """
import edldist
edldist.report(text="x" * 200_000)
import zmq.utils.garbage  # as the first large frame does
"""


def test_a_large_report_is_sent_again_while_its_process_ends() -> None:
    """A socket that sends without a copy needs help that pyzmq gives no longer by then."""
    listener = Listener(ZmqTransport())
    with script_in_a_job(_LARGE_AND_LAST, listener) as process:
        first, second = listener.take(1, acknowledge=False), listener.take(1)
        assert first == second
        _, said = process.communicate(timeout=150)
    assert process.returncode == 0
    (line,) = said.splitlines()  # and no complaint of a socket's
    assert line.startswith(b"figures of report() go to the coordinator at ")


_LOADER_AT_EXIT = """
import weakref
class Older: ...
older = Older()
weakref.finalize(older, int)  # so that weakref's exit handler is older than all others
import edldist
from edldist.student.service.service import StudentService

leave = StudentService.leave
def noted(service):
    from zmq.utils.garbage import gc
    print("sockets work:", not gc._stay_down, flush=True)
    leave(service)
StudentService.leave = noted
loader = edldist.DistillLoader([], checkpointed=False)
import zmq.utils.garbage  # as the first large task does
"""


def test_a_loader_that_nobody_closed_says_goodbye_while_sockets_work() -> None:
    """Its thread sends tasks without copying them until then, from memory that pyzmq would give back."""
    listener = Listener(ZmqTransport())
    environment = os.environ | {"EDLDIST_COORDINATOR": listener.address, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "ignore", "-c", _LOADER_AT_EXIT]
    with contextlib.closing(listener):
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert (done.returncode, done.stdout) == (0, "sockets work: True\n"), done.stderr
