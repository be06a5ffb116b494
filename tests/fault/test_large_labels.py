"""Faults in the middle of large answers, and memory while nobody answers.

Labels of 48 MiB do not fit into the sockets' buffers (36 MiB at most, on Linux): with the student stopped
for a moment, an answer stays half sent for as long as a test likes. So these tests keep to the sockets; what
shared memory does when somebody dies is in test_shared_memory.py.
"""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from tests.fault.crew import Crew, crew
from tests.fault.harness import Role, wait_for
from tests.fault.test_teacher_faults import NOTICED_S, TTL_S, await_requeued

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(240)]

BALLAST = 6 << 20
BATCH = 8
MAX_BYTES = 300 << 20


@pytest.fixture(scope="module")
def party(tmp_path_factory):
    student = {
        "samples": 400,
        "batch_size": BATCH,
        "step_s": 0.05,
        "ballast": BALLAST,
        "max_bytes": MAX_BYTES,
        "heartbeat_ttl_s": TTL_S,
        "env": {"EDLDIST_SHARED_MEMORY": "0"},
    }
    folder = tmp_path_factory.mktemp("large")
    with crew(folder, 3, student, model="tests.fault.teachers:heavy") as made:
        yield made
        made.finish()


def unsent_bytes(worker: Role) -> int:
    """What waits in the kernel on the worker's connections."""
    ports = {f"{c.laddr.port:04X}" for c in psutil.Process(worker.pid).net_connections("tcp")}
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return sum(int(row[4].partition(":")[0], 16) for row in rows if row[1].partition(":")[2] in ports)


def catch_sending(party: Crew) -> Role:
    """Stop the student, so that a worker is left in the middle of its answer."""
    with party.job.computing() as worker:
        party.student.send(signal.SIGSTOP)
    wait_for("an answer that is half sent", lambda: unsent_bytes(worker) > 1 << 16)
    return worker


def test_a_worker_that_dies_sending_is_noticed_and_its_tasks_go_elsewhere(party: Crew):
    party.staff(3)
    worker = catch_sending(party)
    worker.kill()
    on = time.time()
    party.student.send(signal.SIGCONT)
    noticed_s = await_requeued(party, worker) - on
    party.await_steps(30)
    print(f"killed in mid-answer: noticed after {noticed_s:.3f} s, gap {party.gap_s(on):.2f} s")
    assert noticed_s < NOTICED_S
    assert party.gap_s(on) < 1
    party.assert_exact_so_far()


def test_the_answer_of_a_worker_that_froze_sending_comes_late_and_is_counted(party: Crew):
    before = party.stats()
    since = party.logged()
    worker = catch_sending(party)
    worker.send(signal.SIGSTOP)
    party.student.send(signal.SIGCONT)
    on = time.time()
    party.await_log(f"worker {worker.name} is lost: silent", since=since)
    party.await_steps(20)
    assert party.gap_s(on) < TTL_S + 1
    worker.send(signal.SIGCONT)
    wait_for("the late answer", lambda: party.stats()["duplicates"] > before["duplicates"])
    labelled = party.labelled_by(worker)
    wait_for("it to label again", lambda: party.labelled_by(worker) > labelled)
    party.assert_exact_so_far()


def test_memory_stays_bounded_while_nobody_answers(party: Crew):
    rank = psutil.Process(party.student.pid)
    workers = party.workers()
    party.await_steps(20)
    before = rank.memory_info().rss
    for worker in workers:
        worker.send(signal.SIGSTOP)
    stopped = time.time()
    peak, queued = 0, 0
    while time.time() < stopped + 4:
        peak = max(peak, rank.memory_info().rss)
        stats = [m.stats for m in party.job.status().members if m.pid == party.student.pid]
        queued = max([queued, *(int(s.get("queue_bytes") or 0) for s in stats)])
        time.sleep(0.02)
    steps = len(party.steps())
    for worker in workers:
        worker.send(signal.SIGCONT)
    print(f"rss {before >> 20} MiB, at most {peak >> 20} MiB; queue at most {queued >> 20} MiB")
    batch_bytes = 2 * BATCH * BALLAST  # inputs and labels
    # Batches wait without their labels, for which as much again is kept; none is read that would not fit.
    assert 2 * queued > MAX_BYTES - batch_bytes, "the stall did not fill the queue"
    assert queued <= MAX_BYTES
    assert peak - before < MAX_BYTES + 2 * batch_bytes
    assert party.gap_s(stopped) > 2, "the teachers did not stall"
    wait_for("training to go on", lambda: len(party.steps()) > steps + 30)
    party.assert_exact_so_far()
