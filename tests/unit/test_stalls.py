"""A stage of a worker that stands still for 100 ms fills bounded queues, loses nothing, and is made up for.

The real worker, service and pipeline, on a clock that moves a millisecond at a time. Threads are played: each
gets its turns unless it is busy. A student has endless tasks, and answers each pull within a step.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from edldist.clock import FakeClock
from edldist.teacher import passage
from edldist.teacher.model.teacher import Teacher
from edldist.teacher.passes import pipeline
from edldist.teacher.passes.lane import HostLane
from edldist.teacher.tasks import Level
from edldist.teacher.worker import TeacherWorker, WorkerOptions
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import (
    STAGES,
    Hello,
    Idle,
    Labels,
    Lease,
    LeaseGroup,
    Links,
    Peer,
    Pull,
    Register,
    Registered,
    Tasks,
    TensorSpec,
    Welcome,
)
from tests.unit.passes import CPU, Flight

STEP_S, PASS_S, STALL_S = 0.001, 0.004, 0.1
BATCH, TASK, WIDTH = 8, 4, 16
STUDENT = Peer(id="s", address="tcp://student:1")

WELCOME = Welcome(student="s", ping_interval_s=1.0, heartbeat_ttl_s=3600.0, max_frame_bytes=1 << 20)


class Host(HostLane):
    """A lane that keeps the compute thread for as long as a pass takes."""

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self.rig = rig

    def launch(self, parts, compute):
        self.rig.compute_busy(PASS_S + self.rig.stalled("copy_in", "forward", "encode", "copy_out"))
        return _Down(super().launch(parts, compute), self.rig.clock, 0.0)


class Device(HostLane):
    """A lane with two passes in flight, which come down one after another."""

    depth = 2

    def __init__(self, rig: Rig) -> None:
        super().__init__()
        self.rig = rig
        self.free_at = 0.0

    def launch(self, parts, compute):
        took = PASS_S + self.rig.stalled("copy_in", "forward", "encode", "copy_out")
        self.free_at = max(self.free_at, self.rig.clock.monotonic()) + took
        flight = _Down(super().launch(parts, compute), self.rig.clock, self.free_at)
        assert len([each for each in self.rig.worker._pipeline._passes if each.flight]) < self.depth
        return flight


class _Down(Flight):
    """A flight that lands when its time has come."""

    def __init__(self, landed, clock: FakeClock, lands_at: float) -> None:
        super().__init__(landed)
        self.clock, self.lands_at = clock, lands_at

    def done(self) -> bool:
        self.is_down = self.clock.monotonic() >= self.lands_at
        return self.is_down

    def labels(self):
        labels, suspect, _ = super().labels()
        return labels, suspect, PASS_S  # and not what this machine took for it


class Rig:
    """A worker between a coordinator and a student that are played."""

    def __init__(self, lane: Callable[[Rig], HostLane], width: int = WIDTH) -> None:
        self.clock = FakeClock(100.0)
        self.io_free_at = self.compute_free_at = 0.0
        self.stall: str | None = None
        self.stalls = 0
        self.width, self.lease, self.granting = width, 0, True
        self.answered: list[int] = []
        self.bounds: list[int] = []
        self.fullest = 0
        self.peaks: dict[str, Level] = {}
        transport = MemoryTransport()
        self.poller = transport.poller()
        self.coordinator = self.poller.bind("tcp://coordinator:1")
        self.student = self.poller.bind(STUDENT.address)
        teacher = Teacher("tests.models:identify", CPU)
        teacher._model = lambda x: x[:, :4] * 2
        options = WorkerOptions(
            coordinator="tcp://coordinator:1", model="tests.models:identify", batch_size=BATCH, worker_id="w"
        )
        where = {"process": "p", "host": "h", "pid": 1}
        self.worker = TeacherWorker(options, teacher, transport, self.clock, lane(self), **where)
        self.service = self.worker.service

    # --- stalls ---------------------------------------------------------------------------------------

    def stalled(self, *stages: str) -> float:
        """Seconds by which this stage takes longer now: it does so once."""
        if self.stall not in stages:
            return 0.0
        self.stall, self.stalls = None, self.stalls + 1
        return STALL_S

    def io_busy(self, seconds: float) -> None:
        self.io_free_at = max(self.io_free_at, self.clock.monotonic() + seconds)

    def compute_busy(self, seconds: float) -> None:
        self.compute_free_at = max(self.compute_free_at, self.clock.monotonic() + seconds)

    # --- time -----------------------------------------------------------------------------------------

    def run(self, seconds: float) -> int:
        """Let the time pass; samples that were labelled meanwhile."""
        before = len(self.answered)
        for _ in range(round(seconds / STEP_S)):
            now = self.clock.advance(STEP_S)
            self.play()
            if now >= self.io_free_at:
                self.service.turn(now)
            if now >= self.compute_free_at:
                self.worker.turn(now)
            self.look()
        return (len(self.answered) - before) * TASK

    def look(self) -> None:
        """All bounds hold, at every moment."""
        levels = self.service._waiting()
        assert levels.keys() == {"receive", "decode", "batch", "forward", "send"}
        self.bounds = [*self.bounds[-200:], self.service._ledger.room]
        # What it had when it might have more leaves in its time; and a student gives a task at least.
        rows = sum(level.rows for level in levels.values())
        assert rows <= max(*self.bounds, TASK), levels
        self.fullest = max(self.fullest, rows)
        self.service._ledger.validate()
        for stage, level in levels.items():
            most = self.peaks.get(stage, Level(0, 0))
            self.peaks[stage] = Level(max(most.rows, level.rows), max(most.nbytes, level.nbytes))

    def play(self) -> None:
        """The coordinator and the student answer."""
        while (received := self.coordinator.receive()) is not None:
            if isinstance(received.message, Register):
                registered = Registered(incarnation="one", heartbeat_interval_s=1.0, heartbeat_ttl_s=3.0)
                self.coordinator.send(received.sender, registered)
                self.coordinator.send(received.sender, Links(students=[STUDENT], complete=True))
        while (received := self.student.receive()) is not None:
            message, pull = received.message, None
            if isinstance(message, Hello):
                self.student.send(received.sender, WELCOME)
            elif isinstance(message, Labels):
                self.answered += [row.lease for result in message.results for row in result.rows]
                pull = message.pull
            pull = message if isinstance(message, Pull) else pull
            if pull is not None:
                self.student.send(received.sender, *self.answer(pull))

    def answer(self, pull: Pull):
        if not self.granting:
            return (Idle(seq=pull.seq, buffered=0),)
        leases = []
        for _ in range(max(1, pull.room // TASK)):
            self.lease += 1
            leases.append(Lease(id=self.lease, samples=TASK, cost=TASK, own_pass=False))
        rows = len(leases) * TASK
        spec = TensorSpec(name="x", dtype="float32", shape=[rows, self.width])
        frame = torch.zeros(rows, self.width).numpy().tobytes()
        return Tasks(seq=pull.seq, groups=[LeaseGroup(leases=leases, tensors=[spec])], buffered=0), [frame]

    def close(self) -> None:
        self.worker.close("the test is over")
        self.poller.close()


@pytest.fixture(params=[Host, Device])
def rig(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    made = Rig(request.param)
    parts_of, vet, accept = pipeline.parts_of, made.worker._pipeline._forward.vet, made.service._ledger.accept

    def decoding(tasks):
        made.compute_busy(made.stalled("decode"))
        return parts_of(tasks)

    def batching(parts):
        made.compute_busy(made.stalled("batch"))
        vet(parts)

    def receiving(*given):
        made.io_busy(made.stalled("receive"))
        accept(*given)

    monkeypatch.setattr(pipeline, "parts_of", decoding)
    monkeypatch.setattr(made.worker._pipeline._forward, "vet", batching)
    monkeypatch.setattr(made.service._ledger, "accept", receiving)
    made.run(0.1)
    (student,) = made.service._students.values()
    send = student.link.send

    def sending(message, frames=()):
        if isinstance(message, Labels):
            made.io_busy(made.stalled("send"))
        return send(message, frames)

    monkeypatch.setattr(student.link, "send", sending)
    yield made
    made.close()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_stands_still_fills_bounded_queues_and_is_made_up_for(rig: Rig, stage: str) -> None:
    usual = rig.run(0.2)
    assert usual >= 0.9 * 0.2 / PASS_S * BATCH, "it was busy all the time"
    rig.peaks.clear()
    rig.fullest, rig.stall = 0, stage
    during = rig.run(STALL_S)
    assert rig.stalls == 1 and during < usual / 2, "it did stand still"
    assert rig.fullest == rig.service._ledger.room, "its queues are full, and never more than that"
    if stage in ("receive", "send"):
        assert rig.peaks["send"].rows > 0, "what was computed meanwhile waited for the I/O thread"
    rig.run(0.05)
    assert abs(rig.run(0.2) - usual) <= 2 * BATCH, "it is as fast as before"
    rig.granting = False
    rig.run(0.1)
    assert sorted(rig.answered) == list(range(1, rig.lease + 1)), "each task was answered once"
    assert all(level == Level(0, 0) for level in rig.service._waiting().values())


def test_what_waits_is_bounded_by_bytes_too(rig: Rig) -> None:
    rows_in_room = rig.service._ledger.room
    demand = rig.service._ledger._demand
    row_bytes = 4 * (WIDTH + 4)
    demand._most_bytes = 8 * row_bytes
    rig.run(0.1)
    rig.peaks.clear()
    answered = rig.run(0.2)
    assert rig.service._ledger.room == 8 < rows_in_room
    assert sum(level.nbytes for level in rig.service._waiting().values()) <= demand._most_bytes
    assert rig.peaks["decode"].nbytes <= demand._most_bytes and answered > 0
    demand._most_bytes = 1
    rig.run(0.1)
    assert rig.service._ledger.room == 2, "never less than a row on its way, and one in hand"
    assert rig.run(0.09) > 0


@pytest.mark.parametrize("stage", [None, "decode", "batch", "copy_in"])
def test_stages_and_waits_are_the_time_from_a_tasks_coming_to_its_labels_leaving(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, stage: str | None
) -> None:
    """As the student's end of the link sees it, which knows nothing of stages."""
    monkeypatch.setattr(passage, "TIMED_EVERY_S", 1e-9)  # every message is timed
    (student,) = rig.service._students.values()
    answer, send, left = rig.answer, student.link.send, rig.service._passages.left
    came: dict[int, float] = {}
    took: list[float] = []
    told: list[float] = []

    def giving(pull: Pull):
        first = rig.lease + 1
        given = answer(pull)
        if rig.lease >= first:
            came[first] = rig.clock.monotonic()
        return given

    def leaving(message, frames=()):
        for result in message.results if isinstance(message, Labels) else ():
            took.extend(
                rig.clock.monotonic() - came.pop(row.lease) for row in result.rows if row.lease in came
            )
        return send(message, frames)

    def adding(way: passage.Passage) -> None:
        stages, waits, _ = way.durations()
        told.append(sum(stages) + sum(waits))
        left(way)

    rig.run(0.1)
    for where, name, replaced in (
        (rig, "answer", giving),
        (student.link, "send", leaving),
        (rig.service._passages, "left", adding),
    ):
        monkeypatch.setattr(where, name, replaced)
    rig.run(0.05)  # those that came before are gone
    told.clear()
    took.clear()
    rig.stall = stage
    rig.run(0.3)
    assert len(told) == len(took) > 20 and rig.stalls == (stage is not None)
    assert (max(took) > STALL_S) == (stage is not None)
    assert sorted(told) == pytest.approx(sorted(took), rel=0.05)


def test_ways_of_tasks_are_told_with_heartbeats_and_queues_with_them(rig: Rig) -> None:
    rig.run(1.5)
    beat = rig.service._heartbeat()
    assert [each.stage for each in beat.stages] == list(STAGES)
    count = sum(beat.stages[0].counts)
    assert 10 <= count <= 2 * 1.7 / 0.02, "a task in 20 ms, as the lot has it"
    assert all(sum(each.counts) == sum(each.waits) == count for each in beat.stages)
    assert beat.rows and all(row.samples == row.tasks * TASK for row in beat.rows)
    for row in beat.rows:
        assert abs(sum(row.stages) + sum(row.waits) - row.total_s) <= 0.05 * row.total_s
        assert row.bytes_in == row.rows * WIDTH * 4 and row.bytes_out == row.rows * 4 * 4
    assert beat.stats["room"] > 0 and beat.stats["receive_queue_samples"] <= beat.stats["room"]
    assert {name for name in beat.stats if "_queue_" in name} == {
        f"{stage}_queue_{unit}"
        for stage in ("receive", "decode", "batch", "forward", "send")
        for unit in ("samples", "bytes")
    }
