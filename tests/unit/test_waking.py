"""Which sleeping workers the student's service wakes, when, and at what cost."""

from __future__ import annotations

import sys
from functools import partial

from edldist.student.queue.flow import Flow
from edldist.wire.messages import (
    Pong,
    Wake,
)
from tests.unit.party import Party, Worker


def calls_of(work) -> int:
    """How many functions of ours are called."""
    count = 0

    def note(frame, event, arg):
        nonlocal count
        count += event == "call" and "edldist" in frame.f_code.co_filename

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def crowd(job: Party, workers: int) -> list[Worker]:
    """Half of them hold a task each, the others sleep."""
    crew = [job.worker(f"w{n}") for n in range(workers)]
    job.offer(*[4] * (workers // 2))
    for number, worker in enumerate(crew):
        assert len(worker.pull()) == (number < workers // 2)
    return crew


def woken(crew: list[Worker]) -> list[Worker]:
    """Who was told to pull since it last heard."""
    return [worker for worker in crew if any(isinstance(message, Wake) for message in worker.hear())]


def test_a_turn_costs_what_there_is_to_give_however_many_sleep_and_hold_leases(party):
    """It was the sleepers times the leases: 10 ms for each turn at 512 workers."""
    costs = []
    for workers in (32, 256):
        job = party(Flow(low_watermark=500, high_watermark=1000))
        crew = crowd(job, workers)
        turn = partial(job.service.turn, job.clock.monotonic())
        nothing = calls_of(turn)
        job.offer(4, 4)
        two = calls_of(turn)
        assert woken(crew) == crew[workers // 2 : workers // 2 + 2], "two batches, two workers"
        waiting = calls_of(turn)
        assert woken(crew) == [], "nobody else is woken for them"
        costs.append((nothing, two, waiting))
    assert costs[0] == costs[1]


def test_a_worker_that_was_woken_and_does_not_come_keeps_nobody_from_the_task(party):
    job = party()
    crew = [job.worker("first"), job.worker("second")]
    for worker in crew:
        assert not worker.pull()
    job.offer(4)
    job.turn()
    assert woken(crew) == crew[:1]
    job.turn(0.2)
    assert woken(crew) == crew[1:]


def test_a_quarantined_worker_sleeps_until_its_time_is_up_and_is_woken_then(party):
    job = party(heartbeat_ttl_s=1e9)
    sick, well = job.worker("sick"), job.worker("well")
    for _ in range(4):
        job.offer(4)
        (lease,) = sick.pull()
        sick.fail(lease)
        (lease,) = well.pull()
        well.label(lease)
    assert not sick.pull() and "4 failures in a row" in sick.answer.quarantine
    job.offer(4)
    job.turn(29.0)
    assert woken([sick]) == []
    job.turn(1.1)
    assert woken([sick]) == [sick] and len(sick.pull()) == 1


def test_an_idle_worker_is_woken_to_take_an_old_task_a_second_time(party):
    job = party(heartbeat_ttl_s=1e9, hedge_after_s=0.25)
    slow, idle = job.worker("slow"), job.worker("idle")
    job.offer(4)
    (first,) = slow.pull()
    assert not idle.pull()
    job.turn(0.2)
    assert woken([idle]) == []
    job.turn(0.2)
    assert woken([idle]) == [idle] and len(idle.pull()) == 1
    slow.label(first)
    assert job.service.stats()["hedged"] == 1 and job.delivery.wait(0.0, reading=False)


def test_a_wake_that_was_lost_on_the_way_is_sent_again_and_for_as_much(party):
    """The student thinks that the worker is awake; its answer to a ping says that it sleeps."""
    job = party(heartbeat_ttl_s=1e9)
    worker = job.worker("worker")
    assert not worker.pull(8)
    job.offer(8)
    job.turn()
    assert woken([worker]) == [worker]
    job.turn(1.1)
    (ping,) = [received.message for received in iter(worker.link.receive, None)]
    worker.say(Pong(seq=ping.seq, held=[], pulled=0, asleep=True))
    assert woken([worker]) == [worker], "told again"
    assert job.delivery._queue._sleepers["teacher"]._promised_room == 8
    assert worker.pull(8)
