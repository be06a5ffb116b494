"""Workers greet a student, work for it, fall ill and leave: what it answers, and what it records."""

from __future__ import annotations

import logging
import os
import time

import msgspec
import pytest

from edldist.errors import ConfigError, LoaderClosedError
from edldist.labels.grammar import parse_spec
from edldist.student.queue.flow import Flow
from edldist.student.service.probing import PROBE_S
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import (
    Goodbye,
    Idle,
    Labels,
    Ping,
    Pull,
    Refused,
    Register,
    Registered,
    Return,
    Tasks,
    Unknown,
    Welcome,
)
from tests.greetings import FINGERPRINT, fingerprint
from tests.unit.party import Party, Worker, of, raw, result

HALF = msgspec.structs.replace(FINGERPRINT, codec=parse_spec("dense:fp16"))


@pytest.fixture(autouse=True)
def everything_is_logged(caplog) -> None:
    caplog.set_level(logging.INFO, "edldist.student")


# --- greetings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ttl_s", "ping_s"), [(3.0, 1.0), (1.5, 0.5)])
def test_a_worker_is_welcomed_with_what_it_has_to_know(party, ttl_s: float, ping_s: float):
    worker = party(heartbeat_ttl_s=ttl_s, max_frame_bytes=1000).worker("a")
    (welcome,) = worker.greeted
    assert welcome == Welcome(
        student="s", ping_interval_s=ping_s, heartbeat_ttl_s=ttl_s, max_frame_bytes=1000
    )


def test_a_worker_that_is_refused_is_told_why_and_is_not_here(party, caplog):
    job = party(teachers=("teacher", "other"))
    assert job.service.missing_teachers() == {"teacher": "", "other": ""}
    job.worker("a")
    assert job.service.missing_teachers() == {"other": ""}
    (refused,) = job.worker("b", teacher="else").greeted
    assert isinstance(refused, Refused) and "not of 'else'" in refused.reason
    (refused,) = job.worker("c", teacher="other", fingerprint=fingerprint("nonsense")).greeted
    assert isinstance(refused, Refused) and not refused.incompatible, "a student of another version has it"
    assert job.service.missing_teachers() == {"other": refused.reason}
    assert job.service.teachers() == 1 and job.service.codec("teacher").spec.name == "dense"
    assert f"refused teacher worker c: {refused.reason}" in caplog.text


def test_the_last_worker_of_a_group_takes_its_codec_along_if_no_labels_were_used(party):
    job = party()
    first, second = job.worker("first"), job.worker("second")
    assert isinstance(job.worker("third", fingerprint=HALF).greeted[0], Refused)
    first.say(Goodbye(id="first"))
    assert isinstance(job.worker("third", fingerprint=HALF).greeted[0], Refused)
    second.say(Goodbye(id="second"))
    assert isinstance(job.worker("third", fingerprint=HALF).greeted[0], Welcome)


def test_a_group_whose_labels_were_used_is_what_it_is_for_ever(party):
    job = party()
    job.offer(4)
    first = job.worker("first")
    first.label(*first.pull())
    first.say(Goodbye(id="first"))
    assert isinstance(job.worker("third", fingerprint=HALF).greeted[0], Refused)


@pytest.mark.parametrize("anew", [False, True])
def test_a_process_that_greets_again_killed_nobody_and_one_that_was_started_anew_did(party, caplog, anew):
    job = party()
    worker = job.worker("a")
    job.offer(4)
    worker.pull()
    worker.greet(process="another" if anew else "a")
    assert job.service.teachers() == 1
    reason = "it was started anew" if anew else "it greets anew"
    assert job.events() == [("task_requeued", reason)]
    assert (f"worker a is lost: {reason}; 1 of its tasks requeued" in caplog.text) == anew
    assert (f"worker a left: {reason}" in caplog.text) == (not anew)
    (task,) = job.delivery._queue._tracks["teacher"]
    assert len(task.suspicions) == anew


def test_one_that_was_started_anew_shows_that_the_former_is_dead(party):
    job = party()
    job.offer(4)
    former = job.worker("a", route="a~1", process="1")
    former.pull()
    former.link.close()
    job.worker("a", route="a~2", process="2")
    assert job.service.teachers() == 1
    assert job.events() == [("task_requeued", "peer 'a~1' is gone")]


def test_two_processes_of_one_name_do_not_push_each_other_out(party):
    """One of them was written off, and will be told so; until then its labels are as good as any."""
    job = party()
    job.offer(4)
    former = job.worker("a", route="a~1", process="1")
    leases = former.pull()
    another = job.worker("a", route="a~2", process="2")
    former.label(*leases)
    another.pull()
    assert job.service.teachers() == 2 and job.events() == []


def test_who_is_not_known_is_told_to_greet_unless_it_says_goodbye(party):
    job = party()
    stranger = job.worker("a")
    stranger.say(Goodbye(id="a"))
    stranger.say(Goodbye(id="a"))
    assert raw(stranger) == [] and job.service.teachers() == 0
    stranger.say(Pull(seq=1, room=4))
    assert raw(stranger) == [Unknown()]


def test_a_stranger_that_is_gone_before_it_is_answered_does_no_harm(party):
    job = party()
    stranger = job.worker("a")
    stranger.say(Goodbye(id="a"))
    stranger.link.send(Pull(seq=1, room=4))
    stranger.sever()
    job.turn()
    assert job.service.teachers() == 0


# --- work and labels ----------------------------------------------------------------------------------


def test_leases_count_up_from_where_they_are_told_to_or_from_anywhere(party):
    firsts = []
    for job in (party(), party(first_lease=None), party(first_lease=None)):
        job.offer(4)
        firsts += job.worker("a").pull()
    assert firsts[0] == 1 and len(set(firsts)) == 3
    assert all(0 < first < 1 << 60 for first in firsts), "where the leases of questions begin"


def test_a_pull_that_comes_with_labels_is_answered(party):
    job = party()
    worker = job.worker("a")
    job.offer(4, 4)
    (lease,) = worker.pull()
    worker.seq += 1
    worker.label(lease, pull=Pull(seq=worker.seq, room=4))
    assert worker.answered() and job.service.stats()["done"] == 1


def test_each_result_of_a_message_has_its_own_frames(party):
    job = party()
    worker = job.worker("a")
    job.offer(4, 4)
    leases = worker.pull(8)
    results, frames = zip(*(result(lease, first=10 * n) for n, lease in enumerate(leases)), strict=True)
    worker.say(Labels(results=list(results)), *frames)
    labels = [job.delivery.deliver().labels()["teacher"]["logits"].flatten().tolist() for _ in leases]
    assert labels == [[0, 1, 2, 3], [10, 11, 12, 13]]


def test_what_a_worker_gives_back_is_others_without_blame(party):
    job = party()
    worker = job.worker("a")
    job.offer(4)
    leases = worker.pull()
    worker.say(Return(leases=leases))
    assert not worker.held and job.events() == [("task_requeued", "it gave them back")]
    assert worker.pull()


@pytest.mark.parametrize("reason", ["", "its time is up"])
def test_who_says_goodbye_is_gone_and_accuses_nothing(party, caplog, reason):
    job = party()
    worker = job.worker("a")
    job.offer(4)
    worker.pull()
    worker.say(Goodbye(id="a", reason=reason))
    assert job.service.teachers() == 0
    assert f"worker a left: {reason or 'it said goodbye'}" in caplog.text
    (task,) = job.delivery._queue._tracks["teacher"]
    assert task.suspicions == []


def test_a_worker_whose_first_labels_are_of_another_model_is_refused_once_and_its_tasks_are_not_to_blame(
    party,
):
    job = party()
    job.offer(4, 4)
    worker = job.worker("a")
    leases = worker.pull(8)
    worker.label(*leases, version="2", pull=Pull(seq=9, room=4))
    (refused,) = raw(worker)
    assert isinstance(refused, Refused) and refused.incompatible and "version" in refused.reason
    stats = job.service.stats()
    assert (stats["teachers"], stats["failed"], stats["requeued"]) == (0, 0, 2)
    assert all(not task.suspicions for task in job.delivery._queue._tracks["teacher"])


def test_a_worker_that_is_refused_and_gone_meanwhile_is_lost_once(party):
    job = party()
    job.offer(4)
    worker = job.worker("a")
    labels, frame = result(worker.pull()[0], version="2")
    worker.link.send(Labels(results=[labels]), [frame])
    worker.sever()
    job.turn()
    assert job.service.teachers() == 0 and job.service.stats()["requeued"] == 1


def test_later_labels_of_another_model_fail_their_tasks(party):
    job = party()
    job.offer(4, 4, 4)
    worker = job.worker("a")
    first, *others = worker.pull(12)
    worker.label(first)
    worker.label(*others, version="2")
    stats = job.service.stats()
    assert (stats["teachers"], stats["failed"], stats["done"]) == (1, 2, 1)
    assert {event for event, _ in job.events()} == {"task_requeued"}


def test_outputs_are_what_the_first_labels_that_were_used_had(party):
    job = party()
    job.offer(4, 4)
    first, second = job.worker("first"), job.worker("second")
    (late,) = first.pull()
    first.say(Return(leases=[late]))
    first.label(late, name="scores")
    (lease,) = second.pull()
    second.label(lease)
    assert job.service.stats()["done"] == 1, "late labels lay nothing down"
    (lease,) = first.pull()
    first.label(lease, name="scores")
    assert job.service.stats()["failed"] == 1 and job.events()[-1][1] == "the model raised"


# --- quarantine -----------------------------------------------------------------------------------------


def fall_ill(job: Party, sick: Worker, well: Worker | None = None) -> None:
    for _ in range(4):
        job.offer(4)
        sick.fail(*sick.pull())
        if well is not None:
            well.label(*well.pull())


def test_a_worker_that_keeps_failing_is_told_at_once_and_it_is_recorded(party):
    job = party(heartbeat_ttl_s=1e9)
    sick, well = job.worker("sick"), job.worker("well")
    fall_ill(job, sick, well)
    (idle,) = of(Idle, sick)
    assert (idle.seq, idle.buffered) == (
        4,
        0,
    ) and "4 failures in a row, the last one: boom" in idle.quarantine
    assert [event for event in job.events() if event[0] == "teacher_quarantined"] == [
        ("teacher_quarantined", "boom")
    ]
    job.offer(4)
    job.turn()
    assert raw(sick) == [] and job.delivery.asleep("sick")
    for _ in range(2):
        assert sick.pull() == [] and "4 failures in a row" in sick.answer.quarantine
        assert raw(well) == []


def test_a_failure_that_is_one_of_few_is_answered_by_nothing(party):
    job = party(heartbeat_ttl_s=1e9)
    worker = job.worker("a")
    job.worker("b")
    job.offer(4)
    worker.fail(*worker.pull())
    assert raw(worker) == []


def test_failures_on_leases_that_are_not_open_count_for_nothing(party):
    job = party(heartbeat_ttl_s=1e9)
    worker, _ = job.worker("a"), job.worker("b")
    worker.fail(71, 72, 73, 74, 75)
    job.offer(4)
    assert worker.pull() and job.service.stats()["failed"] == 0


def test_a_worker_that_kept_failing_while_it_was_alone_sleeps_when_another_is_there_and_is_woken_later(party):
    job = party(Flow(max_attempts=99), heartbeat_ttl_s=1e9)
    sick = job.worker("sick")
    job.offer(4)
    for _ in range(4):
        sick.fail(*sick.pull())
    assert raw(sick) == []
    job.worker("well")
    assert sick.pull() == [] and "4 failures in a row" in sick.answer.quarantine
    job.turn(29.0)
    assert of(Ping, sick) and job.delivery.asleep("sick")
    job.offer(4)
    job.turn(2.0)
    assert not job.delivery.asleep("sick") and sick.pull()


# --- the service itself -----------------------------------------------------------------------------------


def test_a_turn_says_when_the_next_one_is_due(party):
    job = party()
    now = job.clock.monotonic()
    due = job.service.turn(now)
    assert now < due <= now + min(PROBE_S, job.service._job.next_due_s(now))


def test_offering_wakes_the_service_if_a_worker_sleeps(party):
    job = party()
    poller = job.service._poller
    poller.wait(0.0)
    job.offer(4)
    began = time.monotonic()
    poller.wait(0.02)
    assert time.monotonic() - began >= 0.02, "nobody sleeps"
    worker = job.worker("a")
    worker.pull()
    assert not worker.pull()
    poller.wait(0.0)
    job.offer(4)
    poller.wait(1e6)
    job.turn()
    assert of(Tasks, worker) == [] and not job.delivery.asleep("a")


def test_closing_says_goodbye_to_everybody_once_and_ends_the_loop(party):
    transport = MemoryTransport()
    coordinator = transport.poller()
    hub = coordinator.bind("tcp://nobody:1")
    job = party(transport=transport)
    worker = job.worker("a")
    job.turn()
    registered = hub.receive()
    assert registered is not None and isinstance(registered.message, Register)
    hub.send(registered.sender, Registered(incarnation="i", heartbeat_interval_s=1.0, heartbeat_ttl_s=3.0))
    job.turn()
    for _ in range(2):
        job.service.close()
    heard = [received.message for received in iter(hub.receive, None)]
    assert heard[-1] == Goodbye(id="s", reason="the loader was closed")
    assert raw(worker) == [Goodbye(id="s", reason="the loader was closed")]
    with pytest.raises(LoaderClosedError, match="make a new one"):
        job.delivery.wait(0.0, reading=False)


def test_in_a_forked_child_closing_does_nothing(party):
    job = party(pid=os.getpid() + 1)
    worker = job.worker("a")
    job.service.close()
    assert raw(worker) == [] and job.delivery.wait(0.0, reading=False) is False


def test_what_ended_a_turn_is_raised_in_the_loop(party):
    job = party()
    job.service.fail(ZeroDivisionError("on purpose"))
    with pytest.raises(ZeroDivisionError):
        job.delivery.wait(0.0, reading=False)


def test_workers_connect_to_what_is_advertised(party):
    assert party(advertise="node-0").service.address.startswith("tcp://node-0:5")


def test_a_service_that_cannot_begin_leaves_nothing_bound(party):
    transport = MemoryTransport()
    with pytest.raises(ConfigError):
        Party(transport=transport, bind="tcp://here:7000", coordinator="nowhere")
    party(transport=transport, bind="tcp://here:7000")
