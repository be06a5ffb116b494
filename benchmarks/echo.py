"""The limit of the label path: the same bytes over bare ZeroMQ, two messages under way.

``python -m benchmarks.echo ADDRESS LABEL_BYTES`` is the far end: it answers every message with
``LABEL_BYTES`` bytes.
"""

from __future__ import annotations

import subprocess
import sys
import time

import zmq

__all__ = ["echo_rate"]

_UNDER_WAY = 2


def echo_rate(input_bytes: int, label_bytes: int, seconds: float) -> float:
    """Messages per second."""
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    far = subprocess.Popen([sys.executable, "-m", __name__, f"tcp://127.0.0.1:{port}", str(label_bytes)])
    try:
        peer, _ = socket.recv_multipart()
        payload = bytearray(input_bytes)

        def exchange(duration_s: float) -> float:
            for _ in range(_UNDER_WAY):
                socket.send_multipart([peer, b"task", payload], copy=False)
            count, began = 0, time.perf_counter()
            while (took_s := time.perf_counter() - began) < duration_s:
                socket.recv_multipart(copy=False)
                socket.send_multipart([peer, b"task", payload], copy=False)
                count += 1
            for _ in range(_UNDER_WAY):
                socket.recv_multipart(copy=False)
            return count / took_s

        exchange(seconds / 5)
        return exchange(seconds)
    finally:
        far.kill()
        far.wait()
        socket.close(0)
        context.term()


def _answer(address: str, label_bytes: int) -> None:
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(address)
    labels = bytes(label_bytes)
    socket.send_multipart([b"hello"])
    while True:
        socket.recv_multipart(copy=False)
        socket.send_multipart([b"labels", labels], copy=False)


if __name__ == "__main__":
    _answer(sys.argv[1], int(sys.argv[2]))
