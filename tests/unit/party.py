"""A student's service whose turns a test calls, and workers: no thread, no socket, a clock of its own."""

from __future__ import annotations

import os

import torch

from edldist.clock import FakeClock
from edldist.student.queue.flow import Flow
from edldist.student.service.batch import OpenBatch
from edldist.student.service.options import ServiceOptions
from edldist.student.service.service import StudentService
from edldist.wire.memory import MemoryTransport
from edldist.wire.messages import (
    Failure,
    Hello,
    Idle,
    Labels,
    LeaseRows,
    Message,
    Ping,
    Pong,
    Pull,
    Result,
    Tasks,
    TensorSpec,
)
from tests.greetings import FINGERPRINT


class Party:
    """A student whose turns a test calls, and workers that say what a test says."""

    def __init__(self, flow: Flow | None = None, **options) -> None:
        self.clock = FakeClock(100.0)
        transport = MemoryTransport()
        settings = ServiceOptions(
            student="s",
            teachers=("teacher",),
            coordinator="tcp://nobody:1",
            bind="tcp://here:0",
            advertise=None,
            flow=flow or Flow(),
            **options,
        )
        self.service = StudentService(
            settings, transport, self.clock, process="p", host="h", pid=os.getpid(), first_lease=1
        )
        self.delivery = self.service.delivery
        self.poller = transport.poller()

    def turn(self, after_s: float = 0.0) -> None:
        self.clock.advance(after_s)
        self.service.turn(self.clock.monotonic())
        self.delivery.validate()

    def offer(self, *sizes: int, allocate=None) -> None:
        for samples in sizes:
            self.service.offer(OpenBatch(None, {"x": torch.zeros(samples)}, samples, allocate=allocate))

    def worker(self, name: str) -> Worker:
        return Worker(self, name)

    def close(self) -> None:
        self.service.close()
        self.poller.close()


class Worker:
    """One end of a link."""

    def __init__(self, party: Party, name: str) -> None:
        self.party = party
        self.name = name
        self.link = party.poller.connect(party.service.address, name)
        self.seq = 0
        self.said: list[Message] = []  # by the student, not heard yet
        self.say(Hello(worker=name, teacher="teacher", fingerprint=FINGERPRINT, process=name))
        self.hear()

    def say(self, message: Message, *frames: bytes) -> None:
        self.link.send(message, list(frames))
        self.party.turn()

    def hear(self) -> list[Message]:
        """What came since the last call. Pings are answered."""
        heard = []
        while (received := self.link.receive()) is not None:
            heard.append(received.message)
        for ping in [message for message in heard if isinstance(message, Ping)]:
            self.link.send(Pong(seq=ping.seq, held=sorted(self.held), pulled=0, asleep=True))
        return heard

    @property
    def held(self) -> set[int]:
        """What the student thinks that it holds: nothing was lost on the way."""
        return set(self.party.delivery.leases_of(self.name))

    def pull(self, samples: int = 4) -> list[int]:
        """Ask for work: the leases that come."""
        self.seq += 1
        self.say(Pull(seq=self.seq, room=samples))
        answers = [message for message in self.hear() if isinstance(message, Tasks | Idle)]
        self.answer = answers[-1]
        assert self.answer.seq == self.seq
        if isinstance(self.answer, Idle):
            return []
        return [lease.id for group in self.answer.groups for lease in group.leases]

    def label(self, lease: int, samples: int = 4, width: int = 1) -> None:
        specs = [TensorSpec(name="logits", dtype="float32", shape=[samples, width])]
        result = Result(
            rows=[LeaseRows(lease=lease, count=samples)], version="", compute_s=0.0, tensors=specs
        )
        frame = torch.arange(samples * width, dtype=torch.float32).numpy().tobytes()
        self.say(Labels(results=[result]), frame)

    def fail(self, *leases: int, error: str = "boom") -> None:
        self.say(Failure(leases=list(leases), error=error))


def pass_time(party: Party, seconds: float, *workers: Worker) -> None:
    """Turns every tenth of a second, in which these workers answer pings."""
    for _ in range(round(seconds / 0.1)):
        party.turn(0.1)
        for worker in workers:
            worker.hear()
    party.turn()
