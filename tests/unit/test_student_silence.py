"""Workers fall silent, and their connections break: who is pinged, lost, called back and forgiven."""

from __future__ import annotations

import pytest

from edldist.student.queue.flow import Flow
from edldist.wire.messages import Idle, Ping, Pong, Return, Unknown, Welcome
from tests.unit.party import Party, Worker, of, raw

# --- silence and pings ----------------------------------------------------------------------------------


def test_who_holds_something_is_pinged_ten_times_a_second_and_who_does_not_once(party):
    job = party()
    busy, idle = job.worker("busy"), job.worker("idle")
    job.offer(4)
    busy.pull()
    pings = {worker: 0 for worker in (busy, idle)}
    for _ in range(25):
        job.turn(0.1)
        for worker in pings:
            got = of(Ping, worker)
            pings[worker] += len(got)
            for ping in got:
                worker.link.send(Pong(seq=ping.seq, held=sorted(worker.held), pulled=0, asleep=True))
    assert 23 <= pings[busy] <= 25 and pings[idle] == 2


def test_workers_are_looked_after_ten_times_a_second_and_not_at_each_turn(party):
    probing = party().service._probing
    due = [round(probing.next_s + after_s, 2) for after_s in (0.0, 0.05, 0.1, 0.19, 0.2)]
    assert [probing.turn(now) for now in due] == [True, False, True, False, True]


def test_a_worker_to_which_something_was_just_said_is_not_pinged_too(party):
    job = party()
    worker = job.worker("a")
    for _ in range(12):
        job.turn(0.1)
        worker.pull()
    assert of(Ping, worker) == []


def test_a_silent_worker_is_lost_and_the_others_are_pinged_all_the_same(party, caplog):
    job = party(heartbeat_ttl_s=1.0)
    silent, well = job.worker("silent"), job.worker("well")
    job.offer(4, 4)
    silent.pull()
    well.pull()
    for _ in range(10):
        job.turn(0.1)
        well.hear()
    job.turn(0.11)
    assert job.service.teachers() == 1 and of(Ping, well)
    assert (
        "worker silent is lost: silent for 1.1 s (heartbeat_ttl_s=1); 1 of its tasks requeued" in caplog.text
    )
    (task,) = job.delivery._queue._tracks["teacher"]
    assert len(task.suspicions) == 1


@pytest.mark.parametrize("away_s", [0.8, 10.0])
def test_nobody_was_silent_while_this_side_did_not_listen(party, away_s: float):
    """Suspended, or its interpreter was: what workers said meanwhile still waits in the socket."""
    job = party(heartbeat_ttl_s=1.0)
    silent, well = job.worker("silent"), job.worker("well")
    for _ in range(4):
        job.turn(0.1)
    job.clock.advance(away_s)
    well.say(Return(leases=[]))
    for _ in range(5):
        job.turn(0.1)
    assert job.service.teachers() == 2, "0.4 s before, 0.5 s after"
    job.turn(0.2)
    assert [worker.name for worker in job.service._peers] == ["well"]
    for _ in range(2):
        job.turn(0.2)
    assert job.service.teachers() == 0, "it spoke at the end, and not after it"
    assert raw(silent) != [] and raw(well) != []


def test_an_answer_to_no_ping_changes_nothing(party):
    job = party()
    worker = job.worker("a")
    job.offer(4)
    worker.pull()
    worker.say(Pong(seq=99, held=[], pulled=0, asleep=True))
    assert worker.held and not job.delivery.asleep("a")


# --- connections that break ---------------------------------------------------------------------------------


def pinged(job: Party, worker: Worker) -> int:
    """The number of its next ping."""
    job.turn(1.1)
    return of(Ping, worker)[-1].seq


def test_only_the_leases_that_never_arrived_are_given_to_others(party):
    job = party(heartbeat_ttl_s=1e9)
    worker = job.worker("a")
    job.offer(4, 4)
    kept, lost = worker.pull(8)
    worker.say(Pong(seq=pinged(job, worker), held=[kept], pulled=0, asleep=False))
    assert worker.held == {kept} and job.service.stats()["requeued"] == 1
    assert job.events() == [("task_requeued", "its connection broke and the task or its labels were lost")]
    assert worker.pull()


def test_a_pull_that_was_lost_is_answered_and_the_worker_is_woken_for_what_comes(party):
    """Its pull never came, and it would wait for the answer for ever."""
    job = party(heartbeat_ttl_s=1e9)
    worker = job.worker("a")
    worker.pull(6)
    job.offer(4)
    worker.label(*worker.pull(6))
    job.delivery.deliver()
    seq = pinged(job, worker)
    worker.seq += 1  # said into a connection that broke
    worker.say(Pong(seq=seq, held=[], pulled=worker.seq, asleep=False))
    assert worker.answered() == [] and worker.answer == Idle(seq=worker.seq, buffered=0)
    assert job.delivery.asleep("a")
    job.offer(4)
    assert job.delivery.rouse(1e9, thorough=False) == ["a"]
    assert job.delivery._queue._sleepers["teacher"]._promised_room == 6, "as much as it asked for before"


def test_a_worker_that_is_well_is_told_nothing(party):
    job = party(heartbeat_ttl_s=1e9)
    worker = job.worker("a")
    job.offer(4)
    leases = worker.pull()
    seq = pinged(job, worker)
    worker.say(Pong(seq=seq, held=leases, pulled=0, asleep=False))
    assert raw(worker) == [] and worker.held == set(leases) and not job.delivery.asleep("a")


def test_a_worker_whose_connection_broke_is_called_back_and_forgiven(party, caplog):
    job = party(Flow(max_attempts=1), heartbeat_ttl_s=3.0)
    worker = job.worker("a")
    job.offer(4)
    worker.pull()
    worker.sever()
    job.turn(0.2)
    assert job.service.teachers() == 0 and "worker a is lost: peer" in caplog.text
    (task,) = job.delivery._queue._tracks["teacher"]
    assert len(task.suspicions) == 1
    job.turn(0.2)
    worker.connect()
    job.turn(0.2)
    assert raw(worker) == [Unknown()]
    job.turn(0.2)
    assert raw(worker) == [], "once"
    worker.greet()
    assert isinstance(worker.greeted[0], Welcome) and task.suspicions == []
