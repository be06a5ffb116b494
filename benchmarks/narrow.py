"""A worker with a narrow link to students: ``python -m edldist_benchmarks.narrow ADDRESS CODEC BYTES_A_S``.

A host's loopback interface is wider than most networks, so on one machine the size of labels hardly shows.
Here whatever tensors a worker sends take the time that such a link needs for them. It is a whole worker, with
``paced`` as its model.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch

from edldist.teacher.model.teacher import Teacher
from edldist.teacher.worker import TeacherWorker, WorkerOptions
from edldist.wire.messages import Message
from edldist.wire.transport import Link, Outgoing, Poller, payload
from edldist.wire.zmq.transport import ZmqTransport
from edldist_benchmarks.teachers import TASK_SAMPLES

__all__: list[str] = []


class _NarrowLink:
    """A link that takes its time for tensors; otherwise the link itself."""

    def __init__(self, link: Link, bytes_a_second: float) -> None:
        self._link = link
        self._bytes_a_second = bytes_a_second
        self._free_at = 0.0

    def send(self, message: Message, frames: Outgoing = ()) -> bool:
        nbytes = sum(memoryview(payload(frame)).nbytes for frame in frames)
        if nbytes:
            # Counted from when the last ones were through, so that a thread that wakes late makes up for it.
            now = time.monotonic()
            self._free_at = max(self._free_at, now - 0.1) + nbytes / self._bytes_a_second
            time.sleep(max(0.0, self._free_at - now))
        return self._link.send(message, frames)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)


class _NarrowPoller:
    def __init__(self, poller: Poller, bytes_a_second: float) -> None:
        self._poller = poller
        self._bytes_a_second = bytes_a_second

    def connect(self, address: str, identity: str, to: str = "coordinator") -> Any:
        link = self._poller.connect(address, identity, to)
        return link if to == "coordinator" else _NarrowLink(link, self._bytes_a_second)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


class _NarrowTransport:
    def __init__(self, bytes_a_second: float) -> None:
        self._transport = ZmqTransport()
        self._bytes_a_second = bytes_a_second

    def poller(self) -> Any:
        return _NarrowPoller(self._transport.poller(), self._bytes_a_second)


def _serve(address: str, codec: str, bytes_a_second: float) -> None:
    model = "edldist_benchmarks.teachers:paced"
    options = WorkerOptions(
        address, model, device="cpu", batch_size=TASK_SAMPLES, codec=codec, version="1", allow_nonfinite=True
    )
    teacher = Teacher(model, torch.device("cpu"))
    TeacherWorker(options, teacher, _NarrowTransport(bytes_a_second)).run()


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2], float(sys.argv[3]))
