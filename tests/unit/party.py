"""A student's service whose turns a test calls, and workers: no thread, no socket, a clock of its own."""

from __future__ import annotations

import os

import torch

from edldist.clock import FakeClock
from edldist.student.batch.batch import OpenBatch
from edldist.student.queue.flow import Flow
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

    def __init__(
        self,
        flow: Flow | None = None,
        *,
        first_lease: int | None = 1,
        pid: int | None = None,
        transport: MemoryTransport | None = None,
        **options,
    ) -> None:
        self.clock = FakeClock(100.0)
        self.transport = transport or MemoryTransport()
        usual = {
            "student": "s",
            "teachers": ("teacher",),
            "coordinator": "tcp://nobody:1",
            "bind": "tcp://here:0",
            "advertise": None,
            "flow": flow or Flow(),
        }
        self.service = StudentService(
            ServiceOptions(**usual | options),
            self.transport,
            self.clock,
            process="p",
            host="h",
            pid=os.getpid() if pid is None else pid,
            first_lease=first_lease,
        )
        self.delivery = self.service.delivery
        self.poller = self.transport.poller()

    def turn(self, after_s: float = 0.0) -> None:
        self.clock.advance(after_s)
        self.service.turn(self.clock.monotonic())
        self.delivery.validate()

    def offer(self, *sizes: int, allocate=None) -> None:
        for samples in sizes:
            self.service.offer(OpenBatch(None, {"x": torch.zeros(samples)}, samples, allocate=allocate))

    def worker(self, name: str, **hello) -> Worker:
        """One that greets; ``hello``: what it says of itself, other than usual, and its ``route``."""
        return Worker(self, name, **hello)

    def events(self) -> list[tuple[str, object]]:
        """Those that wait for the coordinator: what happened, and why."""
        waiting = self.service._events._waiting
        return [(event.event, event.fields.get("reason", event.fields.get("error"))) for event in waiting]

    def close(self) -> None:
        self.service.close()
        self.poller.close()


class Worker:
    """One end of a link."""

    def __init__(self, party: Party, name: str, route: str | None = None, **hello) -> None:
        self.party = party
        self.name = name
        self.route = route or name
        self.seq = 0
        self.connect()
        self.greet(**hello)

    def connect(self) -> None:
        """Connect, or do so anew."""
        self.link = self.party.poller.connect(self.party.service.address, self.route)

    def sever(self) -> None:
        """The connection breaks: neither side is told."""
        self.party.transport.sever(self.party.service.address, self.route)

    def greet(self, **hello) -> None:
        """Say hello, and hear the answer."""
        usual = {"teacher": "teacher", "fingerprint": FINGERPRINT, "process": self.name}
        self.say(Hello(worker=self.name, **usual | hello))
        self.greeted = self.hear()

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
        party = self.party
        peer = party.service._peers.find(self.name)
        return set() if peer is None else set(party.service._pinging.held(peer))

    def pull(self, samples: int = 4) -> list[int]:
        """Ask for work: the leases that come."""
        self.seq += 1
        self.say(Pull(seq=self.seq, room=samples))
        return self.answered()

    def answered(self) -> list[int]:
        """The leases that came for the last pull."""
        answers = [message for message in self.hear() if isinstance(message, Tasks | Idle)]
        self.answer = answers[-1]
        assert self.answer.seq == self.seq
        if isinstance(self.answer, Idle):
            return []
        return [lease.id for group in self.answer.groups for lease in group.leases]

    def label(self, *leases: int, pull: Pull | None = None, **labels) -> None:
        """Labels of leases, each in a result of its own (see ``result``)."""
        results, frames = zip(*(result(lease, **labels) for lease in leases), strict=True)
        self.say(Labels(results=list(results), pull=pull), *frames)

    def fail(self, *leases: int, error: str = "boom", certain: bool = False) -> None:
        self.say(Failure(leases=list(leases), error=error, certain=certain))


def raw(worker: Worker) -> list[Message]:
    """What came, and no ping is answered."""
    return [received.message for received in iter(worker.link.receive, None)]


def of(kind: type, worker: Worker) -> list:
    return [message for message in raw(worker) if isinstance(message, kind)]


def result(
    lease: int, samples: int = 4, width: int = 1, first: int = 0, name: str = "logits", version: str = ""
) -> tuple[Result, bytes]:
    """Labels of one task, which count up from ``first``."""
    specs = [TensorSpec(name=name, dtype="float32", shape=[samples, width])]
    rows = [LeaseRows(lease=lease, count=samples)]
    values = torch.arange(first, first + samples * width, dtype=torch.float32)
    return Result(rows=rows, version=version, compute_s=0.0, tensors=specs), values.numpy().tobytes()


def pass_time(party: Party, seconds: float, *workers: Worker) -> None:
    """Turns every tenth of a second, in which these workers answer pings."""
    for _ in range(round(seconds / 0.1)):
        party.turn(0.1)
        for worker in workers:
            worker.hear()
    party.turn()
