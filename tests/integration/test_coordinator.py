"""A real coordinator on real sockets: joining, links, losses, restarts, garbage and HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import zmq

from edldist.coordinator.server import Coordinator, CoordinatorOptions
from edldist.errors import ConfigError
from edldist.wire.messages import (
    Ack,
    Event,
    Goodbye,
    Heartbeat,
    Links,
    Message,
    Refused,
    Register,
    Registered,
    Report,
    Status,
    StatusQuery,
    Unknown,
    decode,
    encode,
)
from edldist.wire.query import StatusClient, query_status
from edldist.wire.zeromq import ZmqTransport

pytestmark = pytest.mark.timeout(60)

INTERVAL_S, TTL_S = 0.05, 0.4
WITHIN_S = 10.0
T = TypeVar("T")


def until(attempt: Callable[[], T], what: str) -> T:
    """The first truthy answer, asked for again and again."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        if found := attempt():
            return found
        time.sleep(0.005)
    raise AssertionError(f"{what} did not happen within {WITHIN_S} s")


class FakeMember:
    """A link whose beats and messages the test drives by hand."""

    def __init__(self, coordinator: str, member_id: str, **fields: Any) -> None:
        self.id = member_id
        base = {"id": member_id, "host": "here", "pid": 1, "wall_s": time.time()}
        self.registration = Register(**base | fields)
        self._poller = ZmqTransport().poller()
        self._link = self._poller.connect(coordinator, member_id)
        self.inbox: list[Message] = []

    def send(self, message: Message) -> None:
        assert self._link.send(message)

    def register(self) -> None:
        self.send(self.registration)

    def beat(self, **stats: Any) -> None:
        self.send(Heartbeat(id=self.id, stats=stats))

    def read(self) -> list[Message]:
        while (received := self._link.receive()) is not None:
            self.inbox.append(received.message)
        return self.inbox

    def expect(self, kind: type[T], which: Callable[[T], bool] = lambda m: True, beat: bool = True) -> T:
        """Wait for a message of a kind (beating meanwhile), dropping those before it."""

        def look() -> T | None:
            self._poller.wait(INTERVAL_S / 2)
            if beat:
                self.beat()
            self.read()
            while self.inbox:
                message = self.inbox.pop(0)
                if isinstance(message, kind) and which(message):
                    return message
            return None

        return until(look, f"{kind.__name__} for {self.id}")

    def close(self) -> None:
        self._poller.close()


class Running:
    """A coordinator in a thread."""

    def __init__(self, bind: str = "tcp://127.0.0.1:0", **options: Any) -> None:
        base = {"http": "127.0.0.1:0", "heartbeat_interval_s": INTERVAL_S, "heartbeat_ttl_s": TTL_S}
        self.coordinator = Coordinator(CoordinatorOptions(bind=bind, **base | options), ZmqTransport())
        self.thread = threading.Thread(target=self.coordinator.run, daemon=True)
        self.thread.start()
        self.address = self.coordinator.wait_ready()

    def stop(self) -> None:
        self.coordinator.stop()
        self.thread.join(WITHIN_S)
        assert not self.thread.is_alive()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def running(stack: contextlib.ExitStack) -> Running:
    running = Running()
    stack.callback(running.stop)
    return running


def teacher(
    stack: contextlib.ExitStack, coordinator: str, member_id: str = "t1", **fields: Any
) -> FakeMember:
    member = FakeMember(coordinator, member_id, role="teacher", **{"group": "big"} | fields)
    stack.callback(member.close)
    return member


def student(
    stack: contextlib.ExitStack, coordinator: str, member_id: str = "s1", **fields: Any
) -> FakeMember:
    base = {"role": "student", "address": f"tcp://here:{member_id}", "teachers": ["big"]}
    member = FakeMember(coordinator, member_id, **base | fields)
    stack.callback(member.close)
    return member


def events(status: Status) -> list[tuple[str, str]]:
    return [(r.event, str(r.fields.get("id"))) for r in status.records if isinstance(r, Event)]


def get(coordinator: Coordinator, path: str, method: str = "GET") -> tuple[int, bytes]:
    assert coordinator.http_address is not None
    connection = http.client.HTTPConnection(coordinator.http_address, timeout=WITHIN_S)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_workers_learn_their_students_as_these_come_and_go(
    stack: contextlib.ExitStack, running: Running
) -> None:
    worker = teacher(stack, running.address)
    worker.register()
    assert worker.expect(Registered).heartbeat_ttl_s == TTL_S
    assert worker.expect(Links).students == []
    first, second = student(stack, running.address, "s1"), student(stack, running.address, "s2")
    first.register()
    second.register()
    links = worker.expect(Links, lambda m: len(m.students) == 2)
    assert [(p.id, p.address) for p in links.students] == [("s1", "tcp://here:s1"), ("s2", "tcp://here:s2")]
    first.send(Goodbye(id="s1", reason="done"))
    links = worker.expect(Links, lambda m: m.complete and len(m.students) < 2)
    # s2 said nothing more and may be lost by now as well.
    assert {p.id for p in links.students} <= {"s2"}
    worker.expect(Links, lambda m: m.students == [])
    seen = events(query_status(running.address))
    assert seen[0][0] == "coordinator_started"
    assert {("student_left", "s1"), ("student_lost", "s2"), ("teacher_joined", "t1")} <= set(seen)
    assert ("teacher_lost", "t1") not in seen


def test_a_student_is_released_by_its_former_worker_but_not_when_only_lost(
    stack: contextlib.ExitStack,
) -> None:
    running = Running(max_students_per_worker=1)
    stack.callback(running.stop)
    workers = [teacher(stack, running.address, f"t{n}") for n in (1, 2)]
    students = [student(stack, running.address, f"s{n}") for n in (1, 2)]

    def beats(*silent: FakeMember) -> bool:
        for member in {*workers, *students} - {*silent}:
            member.beat()
        return True

    def orders(worker: FakeMember, *silent: FakeMember) -> Links | None:
        """The latest word to a worker while all others beat."""
        beats(*silent)
        time.sleep(INTERVAL_S / 4)
        return next((m for m in reversed(worker.read()) if isinstance(m, Links) and m.complete), None)

    def names(links: Links | None) -> list[str]:
        return [] if links is None else [peer.id for peer in links.students]

    workers[0].register()
    for each in students:
        each.register()
    until(lambda: len(names(orders(workers[0], workers[1]))) == 2, "one worker serves both")
    workers[1].register()
    until(lambda: len(names(orders(workers[0]))) == 1, "each serves one")
    links = orders(workers[0])
    assert links is not None
    (own,) = names(links)
    assert links.released == [{"s1": "s2", "s2": "s1"}[own]]

    gone = students[own == "s2"]
    until(lambda: own not in names(orders(workers[0], gone)), "the student is lost")
    for worker in workers:
        assert own not in orders(worker, gone).released  # type: ignore[union-attr]
    shown = {m.id: m.links for m in query_status(running.address).members}
    assert own not in shown["t1"]


def test_a_fresh_coordinator_only_adds_links_until_it_has_settled(stack: contextlib.ExitStack) -> None:
    running = Running(heartbeat_ttl_s=1.5)
    stack.callback(running.stop)
    worker = teacher(stack, running.address, links=["s1", "elsewhere"])
    worker.register()
    first = worker.expect(Links)
    assert not first.complete and first.students == []
    trainer = student(stack, running.address)
    trainer.register()
    assert not worker.expect(Links, lambda m: len(m.students) == 1).complete

    def complete() -> Links | None:
        trainer.beat()
        worker.beat()
        return next((m for m in worker.read() if isinstance(m, Links) and m.complete), None)

    final = until(complete, "complete links")
    assert [p.id for p in final.students] == ["s1"]
    joined = [
        r.fields.get("rejoined")
        for r in query_status(running.address).records
        if isinstance(r, Event) and r.event == "teacher_joined"
    ]
    assert joined == [True]


def test_a_restarted_coordinator_is_told_everything_again(stack: contextlib.ExitStack) -> None:
    before = Running()
    worker, trainer = teacher(stack, before.address), student(stack, before.address)
    for member in (worker, trainer):
        member.register()
        member.expect(Registered)
    before.stop()
    after = Running(before.address)
    stack.callback(after.stop)
    assert after.coordinator.incarnation != before.coordinator.incarnation
    for member in (worker, trainer):
        member.expect(Unknown)
        member.register()
        assert member.expect(Registered).incarnation == after.coordinator.incarnation
    links = worker.expect(Links, lambda m: bool(m.students))
    assert [p.id for p in links.students] == ["s1"]


def test_a_restart_moves_no_links_in_whichever_order_members_return(stack: contextlib.ExitStack) -> None:
    running = Running(max_students_per_worker=1, heartbeat_ttl_s=2.0)
    stack.callback(running.stop)
    workers = [teacher(stack, running.address, f"t{n}", links=[f"s{n}"]) for n in (1, 2)]
    students = [student(stack, running.address, f"s{n}", info={"rejoin": True}) for n in (1, 2)]
    for worker in workers:
        worker.register()
        worker.expect(Links)
    served: dict[str, set[str]] = {worker.id: set() for worker in workers}

    def complete() -> bool:
        done = []
        for member in (*workers, *students):
            member.beat()
        for worker in workers:
            heard = [m for m in worker.read() if isinstance(m, Links)]
            served[worker.id].update(peer.id for links in heard for peer in links.students)
            done.append(any(links.complete and links.students for links in heard))
        return all(done)

    for trainer in reversed(students):
        trainer.register()
        until(lambda t=trainer: not complete() and any(t.id in ids for ids in served.values()), trainer.id)
    until(complete, "complete links")
    assert served == {"t1": {"s1"}, "t2": {"s2"}}


def test_in_a_crowd_not_every_heartbeat_is_answered_but_some_within_each_ttl(
    stack: contextlib.ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edldist.coordinator.server.CROWD", 1)
    running = Running(heartbeat_ttl_s=1.0)
    stack.callback(running.stop)
    trainers = [student(stack, running.address, f"s{n}") for n in (1, 2)]
    for trainer in trainers:
        trainer.register()
        trainer.expect(Registered, beat=False)
    first = trainers[0]
    began, beats, acks = time.monotonic(), 0, []

    def third_answer() -> bool:
        nonlocal beats
        trainers[1].beat()
        first.beat()
        beats += 1
        time.sleep(INTERVAL_S)
        first.read()
        acks.extend(time.monotonic() for m in first.inbox if isinstance(m, Ack))
        first.inbox.clear()
        return len(acks) >= 3

    until(third_answer, "three answers")
    assert time.monotonic() - began >= 2 * 0.5 and beats > len(acks)


def test_reports_and_events_are_kept_once_and_acknowledged(
    stack: contextlib.ExitStack, running: Running
) -> None:
    reporter = teacher(stack, running.address, "reporter")
    for seq in (1, 2, 2, 1, 3):
        reporter.send(Report(sender="p", seq=seq, rank=0, t=1.0, values={"step": seq}))
    reporter.send(Event(event="checkpoint_saved", t=1.0, fields={"step": 3}))
    assert [reporter.expect(Ack, beat=False).seq for _ in range(5)] == [1, 2, 2, 2, 3]
    client = StatusClient(running.address)
    stack.callback(client.close)
    status = until(lambda: (s := client.query()).seq == 5 and s, "five records")
    assert [getattr(r, "seq", None) for r in status.records] == [None, 1, 2, 3, None]
    assert [r.event for r in client.query(since=4).records if isinstance(r, Event)] == ["checkpoint_saved"]
    assert client.query(since=5).records == []


def test_heartbeats_are_acknowledged_and_their_figures_shown(
    stack: contextlib.ExitStack, running: Running
) -> None:
    worker, trainer = teacher(stack, running.address, info={"device": "cpu"}), student(stack, running.address)
    trainer.register()
    worker.register()
    worker.expect(Registered)
    worker.beat(samples=12)
    assert worker.expect(Ack, beat=False).seq == 0
    trainer.expect(Ack)

    def shown() -> dict[str, Any] | None:
        members = {m.id: m for m in query_status(running.address).members}
        return members if {"t1", "s1"} <= members.keys() and members["s1"].links else None

    members = until(shown, "both members in the status")
    assert members["t1"].info == {"device": "cpu"} and members["t1"].stats == {"samples": 12}
    assert members["t1"].links == ["s1"] and members["s1"].links == ["t1"]


def test_an_impossible_registration_is_refused(stack: contextlib.ExitStack, running: Running) -> None:
    worker = teacher(stack, running.address, group="")
    worker.register()
    assert "group" in worker.expect(Refused, beat=False).reason


def test_garbage_on_the_port_harms_nobody(stack: contextlib.ExitStack, running: Running) -> None:
    worker = teacher(stack, running.address)
    worker.register()
    worker.expect(Registered)
    host, port = running.address.removeprefix("tcp://").split(":")
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, os.urandom(4096), b""):
        with socket.create_connection((host, int(port))) as raw, contextlib.suppress(OSError):
            raw.sendall(junk)
    context = zmq.Context()
    stack.callback(context.term)
    dealer = context.socket(zmq.DEALER)
    stack.callback(dealer.close, 0)
    dealer.connect(running.address)
    for frames in (
        [b""],
        [b"junk"],
        [b"ED\x01\xc1"],
        [b"ED\x09x"],
        [b"", b"", b"ED"],
        [os.urandom(9999)] * 3,
    ):
        dealer.send_multipart(frames)
    # A valid header that no member sends, then a question: even this peer is answered.
    dealer.send(encode(Unknown()))
    dealer.send(encode(StatusQuery()))

    def garbage() -> int:
        worker.beat()
        count: int = json.loads(get(running.coordinator, "/status")[1])["garbage"]
        return count if count >= 6 else 0

    # The six above, and what random bytes happen to look like in older versions of ZeroMQ's protocol.
    assert until(garbage, "the count of garbage") >= 6
    assert dealer.poll(WITHIN_S * 1e3)
    while not isinstance(answer := decode(dealer.recv()), Status):
        assert isinstance(answer, Refused) and "protocol" in answer.reason
        assert dealer.poll(WITHIN_S * 1e3)
    worker.beat()
    assert "t1" in {m.id for m in query_status(running.address).members}


def test_http_shows_the_state_and_refuses_everything_else(
    stack: contextlib.ExitStack, running: Running
) -> None:
    worker = teacher(stack, running.address)
    worker.register()
    worker.expect(Registered)
    worker.beat(rate=float("nan"))
    assert get(running.coordinator, "/healthz") == (200, b"ok")
    code, body = get(running.coordinator, "/status?x=1")
    page = json.loads(body)
    assert code == 200 and page["incarnation"] == running.coordinator.incarnation
    assert page["counts"] == {"teachers": 1, "students": 0} and page["garbage"] == 0
    assert [m["id"] for m in page["members"]] == ["t1"] and "records" not in page
    code, body = get(running.coordinator, "/nowhere")
    assert code == 404 and "/status" in json.loads(body)["error"]
    for method in ("POST", "DELETE", "HEAD", "BREW"):
        assert get(running.coordinator, "/status", method)[0] == 405


def test_http_survives_garbage_without_a_word(running: Running, capfd: pytest.CaptureFixture[str]) -> None:
    assert running.coordinator.http_address is not None
    host, port = running.coordinator.http_address.split(":")
    for junk in (
        b"\x00\xff\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"x" * 70_000,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n",
        b"",
    ):
        with socket.create_connection((host, int(port))) as raw, contextlib.suppress(OSError):
            raw.sendall(junk)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(4096):
                pass
    assert get(running.coordinator, "/healthz") == (200, b"ok")
    assert capfd.readouterr().err == ""


def test_a_taken_address_is_refused_with_its_holder(running: Running) -> None:
    taken = Coordinator(CoordinatorOptions(bind=running.address, http=None), ZmqTransport())
    with pytest.raises(ConfigError, match=rf"{running.address}.*pid {os.getpid()}"):
        taken.run()
    taken_http = CoordinatorOptions(bind="tcp://127.0.0.1:0", http=running.coordinator.http_address)
    with pytest.raises(ConfigError, match="--http"):
        Coordinator(taken_http, ZmqTransport()).run()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"bind": "nonsense"}, "nonsense"),
        ({"bind": "tcp://127.0.0.1:0", "http": "7071"}, "HOST:PORT"),
        ({"bind": "tcp://127.0.0.1:0", "http": "127.0.0.1:99999"}, "HOST:PORT"),
        ({"heartbeat_interval_s": 0.0}, "heartbeat_interval_s"),
        ({"heartbeat_ttl_s": 1.5}, "two intervals"),
        ({"max_students_per_worker": 0}, "max_students_per_worker"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        Coordinator(CoordinatorOptions(**options), ZmqTransport()).run()


def spawn(bind: str, ready: Path) -> subprocess.Popen[str]:
    code = (
        "import sys; from edldist.coordinator.server import CoordinatorOptions, run_coordinator\n"
        f"options = CoordinatorOptions(bind={bind!r}, http='127.0.0.1:0', ready_file={str(ready)!r},\n"
        f"    heartbeat_interval_s={INTERVAL_S}, heartbeat_ttl_s={TTL_S})\n"
        "sys.exit(run_coordinator(options) or ('torch' in sys.modules and 3))"
    )
    return subprocess.Popen([sys.executable, "-W", "error", "-c", code], stderr=subprocess.PIPE, text=True)


def test_a_killed_coordinator_process_comes_back_on_its_address(
    stack: contextlib.ExitStack, tmp_path: Path
) -> None:
    ready = tmp_path / "ready.json"

    def started(process: subprocess.Popen[str]) -> dict[str, Any] | None:
        assert process.poll() is None, process.communicate()[1]
        said = json.loads(ready.read_text()) if ready.exists() else {}
        return said if said.get("pid") == process.pid else None

    with spawn("tcp://127.0.0.1:0", ready) as first:
        stack.callback(first.kill)
        said = until(lambda: started(first), "the first life")
        worker = teacher(stack, said["address"])
        worker.register()
        assert worker.expect(Registered).incarnation == said["incarnation"]
        first.kill()
    with spawn(said["address"], ready) as second:
        stack.callback(second.kill)
        again = until(lambda: started(second), "the second life")
        assert again["address"] == said["address"] and again["incarnation"] != said["incarnation"]
        worker.expect(Unknown)
        worker.register()
        assert worker.expect(Registered).incarnation == again["incarnation"]
        second.send_signal(signal.SIGTERM)
        assert second.communicate(timeout=WITHIN_S)[1] == ""
        assert second.returncode == 0  # 3 would say that it imported torch
