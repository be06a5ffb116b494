"""The limit of the label path: the same batches over bare ZeroMQ, two messages under way.

``python -m edldist_benchmarks.echo ADDRESS LABEL_BYTES`` is the far end: it answers every message with
``LABEL_BYTES`` bytes.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import zmq
from torch import Tensor

from edldist_benchmarks.figures import WARM_UP
from edldist_benchmarks.processes import Processes

__all__ = ["open_echo"]

_UNDER_WAY = 2
_START_MS = 60_000


@contextlib.contextmanager
def open_echo(batches: Iterator[Tensor], label_bytes: int) -> Iterator[Callable[[float], float]]:
    """A far end in a process of its own, and a function from seconds to messages a second.

    Args:
        batches: what is sent, each as it comes: its rival is given such batches, too.
        label_bytes: of an answer.
    """
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.RCVTIMEO, _START_MS)
    with tempfile.TemporaryDirectory() as folder, Processes(Path(folder)) as processes:
        try:
            port = socket.bind_to_random_port("tcp://127.0.0.1")
            far = [
                sys.executable,
                "-m",
                "edldist_benchmarks.echo",
                f"tcp://127.0.0.1:{port}",
                str(label_bytes),
            ]
            processes.start("echo", *far)
            peer, _ = socket.recv_multipart()

            def send() -> None:
                payload = memoryview(next(batches).numpy()).cast("B")  # type: ignore[arg-type]
                socket.send_multipart([peer, b"task", payload], copy=False)

            def exchange(seconds: float) -> float:
                for _ in range(_UNDER_WAY):
                    send()
                count, began = 0, time.perf_counter()
                while (took_s := time.perf_counter() - began) < seconds:
                    socket.recv_multipart(copy=False)
                    send()
                    count += 1
                for _ in range(_UNDER_WAY):
                    socket.recv_multipart(copy=False)
                return count / took_s

            def echo_rate(seconds: float) -> float:
                exchange(seconds * WARM_UP)
                return exchange(seconds)

            yield echo_rate
        finally:
            socket.close(0)
            context.term()


def _answer(address: str, label_bytes: int) -> None:
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(address)
    labels = b"\1" * label_bytes
    socket.send_multipart([b"hello"])
    while True:
        socket.recv_multipart(copy=False)
        socket.send_multipart([b"labels", labels], copy=False)


if __name__ == "__main__":
    _answer(sys.argv[1], int(sys.argv[2]))
