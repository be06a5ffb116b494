"""A real coordinator on real sockets: joining, links, losses, restarts and records."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.request
from typing import Any

import msgspec
import pytest

from edldist.clock import SystemClock
from edldist.errors import RefusedError
from edldist.teacher.service.identity import TeacherIdentity
from edldist.teacher.service.service import TeacherService
from edldist.wire.messages import (
    Ack,
    Event,
    Generation,
    Goodbye,
    GroupNode,
    Links,
    MemberStatus,
    NodeReport,
    Refused,
    Registered,
    Regroup,
    Report,
    RunView,
    Status,
    Unknown,
)
from edldist.wire.query import StatusClient, query_status
from edldist.wire.zmq.transport import ZmqTransport
from tests.greetings import FINGERPRINT
from tests.integration.members import INTERVAL_S, TTL_S, FakeMember, Running, student, teacher, until

pytestmark = pytest.mark.timeout(240)


def events(status: Status) -> list[tuple[str, str]]:
    return [(r.event, str(r.fields.get("id"))) for r in status.records if isinstance(r, Event)]


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
        reporter.send(Report(reporter="p", seq=seq, rank=0, t=1.0, values={"step": seq}))
    reporter.send(Event(event="checkpoint_saved", t=1.0, fields={"step": 3, "bytes": 9, "seconds": 0.5}))
    assert [reporter.expect(Ack, beat=False).seq for _ in range(5)] == [1, 2, 2, 2, 3]
    client = StatusClient(running.address)
    stack.callback(client.close)
    status = until(lambda: (s := client.query()).seq == 5 and s, "five records")
    assert [r.seq for r in status.records] == [0, 1, 2, 3, 0], "0: an event of a member that does not count"
    assert [r.event for r in client.query(since=4).records if isinstance(r, Event)] == ["checkpoint_saved"]
    assert client.query(since=5).records == []
    saved = Event(
        event="checkpoint_saved", t=1.0, fields={"step": 4, "bytes": 9, "seconds": 0.5}, reporter="p"
    )
    strange = Event(event="no_such_event", t=1.0, reporter="p")
    for event, seq in ((saved, 4), (saved, 4), (strange, 5), (saved, 6)):
        reporter.send(msgspec.structs.replace(event, seq=seq))
    assert [reporter.expect(Ack, beat=False).seq for _ in range(4)] == [4, 4, 5, 6]
    assert [r.seq for r in client.query(since=status.seq).records] == [4, 6]


def test_forged_events_are_dropped_counted_and_said_once(
    stack: contextlib.ExitStack, running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a local process says, those who read the record can format and add up what is in it."""
    mallory = teacher(stack, running.address, "mallory")
    forged = [
        Event(event="teacher_lost", t=1.0, fields={"id": "w", "silent_s": "soon"}),
        Event(event="student_lost", t=1.0, fields={"process": "p", "silent_s": 3.0}),
        Event(event="checkpoint_saved", t=1.0, fields={"step": "last", "bytes": 1, "seconds": 1.0}),
        Event(event="anything", t=1.0),
    ]
    for event in forged:
        mallory.send(event)
    mallory.send(Event(event="checkpoint_failed", t=1.0, fields={"step": 3, "reason": "disk full"}))
    client = StatusClient(running.address)
    stack.callback(client.close)
    status = until(lambda: (s := client.query()).seq == 2 and s, "one of five events")
    assert [r.event for r in status.records if isinstance(r, Event)][1:] == ["checkpoint_failed"]
    assert caplog.text.count("dropped what 'mallory~p-mallory' reported") == 1
    with urllib.request.urlopen(f"http://{running.coordinator.http_address}/status", timeout=5) as page:
        assert json.load(page)["garbage"] == 4


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


def test_a_worker_that_was_cut_off_and_replaced_is_no_second_self_when_it_is_back(
    stack: contextlib.ExitStack, running: Running
) -> None:
    """Its connection is made anew then, and what it says is nothing that its successor has said."""

    def worker(process: str) -> TeacherService:
        identity = TeacherIdentity(
            *("t1", "big", running.address, 4, FINGERPRINT, process, "here", 1, "cpu", "cpu", 60.0)
        )
        made = TeacherService(identity, ZmqTransport(), SystemClock())
        made.extra_stats = lambda: {"of": process}
        stack.callback(made.close, "the test is over")
        return made

    def live(*services: TeacherService) -> list[MemberStatus]:
        for service in services:
            service.turn(time.monotonic())
        return query_status(running.address).members

    def counted(service: TeacherService) -> bool:
        return [member.stats.get("of") for member in live(service)] == [service._identity.process]

    cut_off, successor = worker("its-process"), worker("another-process")
    until(lambda: counted(cut_off), "a member")
    until(lambda: not query_status(running.address).members, "its loss")
    until(lambda: counted(successor), "its successor")

    def refused() -> bool:
        with contextlib.suppress(RefusedError):
            assert [member.stats.get("of") for member in live(successor, cut_off)] == ["another-process"]
            return False
        return True

    until(refused, "an end of the one that was cut off")
    assert counted(successor)


def test_ranks_of_a_generation_that_is_over_are_told_to_leave_and_count_for_nothing(
    stack: contextlib.ExitStack, running: Running
) -> None:
    """Whether they register late, as those of a host that was cut off, or are members still."""
    process = GroupNode(process="agent", host="127.0.0.1", port=9, ranks=1)
    node = teacher(stack, running.address, "agent")

    def generation(number: int) -> None:
        """The only node of a run says that it is in this generation."""
        formed = Generation(number=number, token=str(number), nodes=[process])
        report = NodeReport(
            run="r", job="j", node=process, least=1, most=1, state="member", generation=formed, seq=number
        )
        node.send(report)
        node.expect(RunView, lambda view: view.generation == formed, beat=False)

    generation(1)
    stays = student(stack, running.address, "s1", group="g1", run="r", generation=1)
    stays.register()
    stays.expect(Registered)
    other = student(stack, running.address, "s9", group="g1", run="another", generation=1)
    other.register()
    other.expect(Registered)
    generation(2)
    order = stays.expect(Regroup)
    assert (order.generation, order.lost) == ("g1", "s1")
    assert order.reason == "generation 1 of run r is over: 2 followed it"
    stays.send(Goodbye(id="s1", reason="done"))

    late = student(stack, running.address, "s2", group="g1", run="r", generation=1)
    late.register()
    assert late.expect(Regroup, beat=False).lost == "s2"
    present = student(stack, running.address, "s3", group="g2", run="r", generation=2)
    present.register()
    present.expect(Registered)
    other.beat()
    assert "s3" in {member.id for member in query_status(running.address).members} <= {"s3", "s9"}
    assert not any(isinstance(message, Regroup) for message in [*present.read(), *other.read()])


def test_who_asks_for_an_id_does_not_keep_the_dead_process_alive_that_had_it(
    stack: contextlib.ExitStack, running: Running
) -> None:
    """A worker that is started anew under its id, right after a crash, asks more often than the TTL."""
    died = teacher(stack, running.address)
    died.register()
    died.expect(Registered)
    died.close()
    anew = teacher(stack, running.address, process="p-anew")
    anew.register()
    refused = anew.expect(Refused, beat=False)
    assert "held by pid 1" in refused.reason and refused.held_for_s == TTL_S

    def registered() -> bool:
        anew.register()
        return any(isinstance(message, Registered) for message in anew.read())

    until(registered, "a free id")
    assert ("teacher_lost", "t1") in events(query_status(running.address))
