"""``edldist.report``: figures reach a coordinator that may come late, die and come back."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import edldist
from edldist.errors import ConfigError, InputError
from edldist.observe import reporter as reporting
from edldist.observe.reporter import Reporter, event
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import MAGIC, PROTOCOL_VERSION, Ack, Event, Message, Refused, Report, encode
from edldist.wire.transport import Hub, Sender, Transport
from edldist.wire.zmq.transport import ZmqTransport

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "tcp://127.0.0.1:4001"


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
        deadline = time.monotonic() + 60
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


@pytest.fixture
def network() -> MemoryTransport:
    return MemoryTransport()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "_RESEND_S", 0.1)
    monkeypatch.setattr(reporting, "_FLUSH_S", 3.0)
    monkeypatch.setattr(reporting, "_FIRST_ANSWER_S", 3.0)
    monkeypatch.setattr(reporting, "_end_expected", False)


@pytest.fixture
def current(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """``edldist.report`` of this process, inside a job."""
    listener = Listener(ZmqTransport())
    monkeypatch.setenv("EDLDIST_COORDINATOR", listener.address)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(reporting, "_reporter", None)
    monkeypatch.setattr(reporting.atexit, "register", lambda *args: None)
    yield listener
    if reporting._reporter is not None:
        reporting._reporter.close()
    listener.close()


def test_reports_are_numbered_and_acknowledged(network: MemoryTransport) -> None:
    listener = Listener(network)
    reporter = Reporter(listener.address, rank=3, transport=network)
    for step in range(5):
        reporter.report({"step": step})
    reports = listener.take(5)
    assert [(r.seq, r.rank, r.values["step"]) for r in reports] == [(n + 1, 3, n) for n in range(5)]
    assert {r.reporter.encode() for r in reports} == {peer.route for peer in listener.peers}
    assert reporter.close() is True


def test_reports_wait_for_a_coordinator_that_comes_late(network: MemoryTransport) -> None:
    reporter = Reporter(ADDRESS, rank=0, transport=network)
    reporter.report({"loss": 0.5})
    listener = Listener(network, ADDRESS)
    assert listener.take(1)[0].values == {"loss": 0.5}
    assert reporter.close() is True


def test_what_was_not_acknowledged_is_sent_again_in_order(network: MemoryTransport) -> None:
    first = Listener(network, ADDRESS)
    reporter = Reporter(ADDRESS, rank=0, transport=network)
    for step in range(3):
        reporter.report({"step": step})
    assert [r.seq for r in first.take(3, acknowledge=False)] == [1, 2, 3]
    first.close()
    second = Listener(network, ADDRESS)
    seen = [r.seq for r in second.take(3)]
    assert seen == [1, 2, 3]
    assert reporter.close() is True


def test_what_was_acknowledged_is_not_sent_again(network: MemoryTransport) -> None:
    listener = Listener(network)
    reporter = Reporter(listener.address, rank=0, transport=network)
    reporter.report({"step": 0})
    reporter.report({"step": 1})
    listener.take(2)
    reporter.report({"step": 2})
    later = [r.seq for r in listener.take(1)]
    assert reporter.close() is True
    while (received := listener.hub.receive()) is not None:
        later.append(received.message.seq)
    assert 3 in later
    assert 1 not in later


def test_events_are_numbered_among_the_reports_and_repeated_like_them(network: MemoryTransport) -> None:
    """What happened last in a process, such as a checkpoint at its end, must not get lost on the way."""
    listener = Listener(network)
    reporter = Reporter(listener.address, rank=0, transport=network)
    reporter.report({"step": 7})
    reporter.event("checkpoint_saved", {"step": 7})
    first = listener.take(2, acknowledge=False)
    again = listener.take(2)
    assert [(type(m), m.seq) for m in first] == [(Report, 1), (Event, 2)]
    assert again == first
    assert reporter.close() is True


def test_closing_without_a_coordinator_gives_up_in_time(
    network: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "_FIRST_ANSWER_S", 0.2)
    reporter = Reporter(ADDRESS, rank=0, transport=network)
    reporter.report({"step": 0})
    began = time.monotonic()
    assert reporter.close(5) is False
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("bad", ["refused", "version"])
def test_a_coordinator_that_will_never_take_reports_is_logged(
    network: MemoryTransport, caplog: pytest.LogCaptureFixture, bad: str
) -> None:
    listener = Listener(network)
    reporter = Reporter(listener.address, rank=0, transport=network)
    reporter.report({"step": 0})
    listener.take(1, acknowledge=False)
    if bad == "refused":
        listener.hub.send(listener.peers[0], Refused(reason="not you"))
    else:
        network._to_link(listener.address, listener.peers[0].route, [MAGIC + bytes([PROTOCOL_VERSION + 1])])
    reporter._thread.join(10)
    assert not reporter._thread.is_alive()
    assert ("not you" if bad == "refused" else "wire protocol") in caplog.text
    reporter.report({"step": 1})
    assert reporter.close() is False


def test_outside_a_job_reports_go_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDLDIST_COORDINATOR", raising=False)
    monkeypatch.setattr(reporting, "_reporter", None)
    edldist.report(step=1, loss=0.5)
    event("checkpoint_saved", step=1)
    assert reporting._reporter is None


def test_values_of_any_number_type_arrive_plain(current: Listener) -> None:
    edldist.report(
        step=np.int64(3),
        loss=torch.tensor(0.5, requires_grad=True),
        accuracy=np.float64(0.75),
        rate=np.float32(2.0),
        best=np.bool_(True),
        done=False,
        note=np.str_("warm"),
        nothing=None,
        big=2**64 - 1,
    )
    (report,) = current.take(1)
    assert report.rank == 2
    assert report.values == {
        "step": 3,
        "loss": 0.5,
        "accuracy": 0.75,
        "rate": 2.0,
        "best": True,
        "done": False,
        "note": "warm",
        "nothing": None,
        "big": 2**64 - 1,
    }
    assert {type(value) for value in report.values.values()} == {int, float, bool, str, type(None)}


@pytest.mark.parametrize(
    "value",
    [[1], {"a": 1}, object(), torch.zeros(2), np.zeros(3), 1j, b"bytes", 2**64, -(2**63) - 1],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_travel_raises_where_it_was_given(current: Listener, value: object) -> None:
    with pytest.raises(InputError, match="loss"):
        edldist.report(loss=value)
    edldist.report(step=1)
    assert current.take(1)[0].values == {"step": 1}, "and reporting goes on"


def test_odd_text_does_not_end_reporting(current: Listener) -> None:
    edldist.report(note="half \ud800 pair")
    with pytest.raises(InputError, match="257 characters"):
        edldist.report(**{"k" * 257: 1})
    edldist.report(step=1)
    assert [set(r.values) for r in current.take(2)] == [{"note"}, {"step"}]


@pytest.mark.parametrize(
    "values",
    [{f"m{number}": number for number in range(1025)}, {f"m{number}": "x" * 60_000 for number in range(20)}],
    ids=["too many", "too long"],
)
def test_more_than_a_message_holds_raises_where_it_was_given(current: Listener, values: dict) -> None:
    """A coordinator would drop it as garbage, and this side send it again and again."""
    with pytest.raises(InputError, match=rf"report\(\) of {len(values)} values"):
        edldist.report(**values)
    with pytest.raises(InputError, match=rf"event\(\) of {len(values)} values"):
        event("big", **values)
    edldist.report(step=1, text="y" * 100_000)
    (report,) = current.take(1)
    assert report.seq == 1 and len(report.values["text"]) == 65_536


def test_a_wrong_address_is_a_configuration_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDLDIST_COORDINATOR", "localhost:7070")
    monkeypatch.setattr(reporting, "_reporter", None)
    with pytest.raises(ConfigError, match="EDLDIST_COORDINATOR.*localhost:7070"):
        edldist.report(step=1)


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
    with _process(script, listener) as process:
        messages = listener.take_new(4)
        _, errors = process.communicate(timeout=60)
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
    with _process(_ORPHAN.replace("os.read(read_end", "os.close(write_end); os.read(read_end"), listener):
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
    with _process(_KILLED, listener, stdin=subprocess.PIPE) as process:
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
    reporter.report({"step": 1})
    (first,) = listener.take(1, acknowledge=False)
    assert isinstance(first, Report) and not reporter.close(timeout_s=0.0), "it waits for an answer"
    deadline = time.monotonic() + 60
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
    with _process(str(script), listener, by_path=True):
        assert [m.values["step"] for m in listener.take_new(3)] == [0, 1, 2]


@contextlib.contextmanager
def _process(
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
    with _process(_BUSY_FORKS, listener) as process:
        assert [m.values["step"] for m in listener.take_new(2)] == [0, 1]
        assert process.wait(60) == 0


def test_a_process_that_was_asked_to_end_waits_no_longer_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a coordinator that may have been asked, too; nor does its socket linger for one."""
    monkeypatch.setattr(reporting, "_FIRST_ANSWER_S", 30.0)
    monkeypatch.setattr(reporting, "_HURRIED_S", 0.2)
    reporter = Reporter("tcp://127.0.0.1:9", 0)
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
    with _process(_LARGE_AND_LAST, listener) as process:
        first, second = listener.take(1, acknowledge=False), listener.take(1)
        assert first == second
        _, said = process.communicate(timeout=60)
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
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "sockets work: True\n"), done.stderr


def test_the_coordinator_that_a_loader_was_given_gets_the_reports_and_that_is_said_once(
    current: Listener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("EDLDIST_COORDINATOR")
    monkeypatch.delenv("EDLDIST_OUTPUT", raising=False)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(reporting, "_coordinator", None)
    monkeypatch.setattr(reporting, "_said_where", False)
    with edldist.DistillLoader([], inputs="x", coordinator=current.address):
        reporting.event("remark", text="no figure")  # of which nobody asks where it goes
        assert not any("figures of report()" in message for message in caplog.messages)
        edldist.report(step=1, loss=0.5)
        edldist.report(step=2, loss=0.25)
        said = [record.message for record in caplog.records if "figures of report()" in record.message]
        assert said == [
            f"figures of report() go to the coordinator at {current.address}, which keeps them in files "
            "if it was started with --output"
        ]
        values = []
        while len(values) < 2:
            (message,) = current.take(1)
            if isinstance(message, Report) and message.values not in values:
                values.append(message.values)
    assert values == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


def test_reports_go_to_the_coordinator_of_the_latest_loader(current: Listener) -> None:
    later = Listener(ZmqTransport())
    with contextlib.closing(later), ThreadPoolExecutor() as pool:
        edldist.report(step=1)
        first = pool.submit(current.take_new, 1)
        with edldist.DistillLoader([], inputs="x", coordinator=later.address):
            edldist.report(step=2)
            while not isinstance((told := later.take(1)[0]), Report):
                pass  # the loader has joined there, too
        (before,) = first.result()
        reporting.flush()
    assert isinstance(before, Report)
    assert (before.values, told.values) == ({"step": 1}, {"step": 2})


def test_a_loader_that_is_refused_changes_nothing_for_reports(current: Listener) -> None:
    with pytest.raises(ConfigError, match="on_poison"):
        edldist.DistillLoader([], inputs="x", coordinator="tcp://127.0.0.1:1", on_poison="shrug")
    edldist.report(step=1)
    (told,) = current.take_new(1)
    assert isinstance(told, Report) and told.values == {"step": 1}
