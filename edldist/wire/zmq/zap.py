"""Who may connect: libzmq asks here for each handshake (ZeroMQ RFC 27, ZAP), in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import zmq
from zmq.utils import z85

__all__ = ["Doorkeeper"]

logger = logging.getLogger(__name__)

_ENDPOINT = "inproc://zeromq.zap.01"
_VERSION = b"1.0"
_KEY_BYTES = 32
_PARTS = 7
_NOTHING = (b"",) * _PARTS


class Doorkeeper:
    """Answers for all hubs of one context. A thread, since the poller's may be at work while others knock.

    Args:
        context: of the hubs.
        admits: whether a public key (Z85) may connect to a hub of a domain.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], admits: Callable[[str, str], bool]) -> None:
        self._admits = admits
        self._socket = context.socket(zmq.REP)
        self._socket.linger = 0
        self._socket.bind(_ENDPOINT)
        self._end, end = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        self._end.linger = end.linger = 0
        self._end.bind(f"inproc://doorkeeper-{id(self)}")
        end.connect(f"inproc://doorkeeper-{id(self)}")
        self._turned_away = 0
        self._thread = threading.Thread(target=self._run, args=(end,), name="edldist-doorkeeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; to be called before the context ends."""
        self._end.send(b"")
        self._thread.join()
        self._end.close()

    def _run(self, end: zmq.Socket[bytes]) -> None:
        poller = zmq.Poller()
        poller.register(end, zmq.POLLIN)
        poller.register(self._socket, zmq.POLLIN)
        while end not in (ready := dict(poller.poll())):
            if self._socket in ready:
                self._socket.send_multipart(self._answer(self._socket.recv_multipart()))
        self._socket.close()
        end.close()

    def _answer(self, request: list[bytes]) -> list[bytes]:
        version, number, domain, address, _, mechanism, proven = (*request, *_NOTHING)[:_PARTS]
        key = ""
        if (version, mechanism, len(proven)) == (_VERSION, b"CURVE", _KEY_BYTES):
            key = z85.encode(proven).decode()
        if key and self._admits(key, domain.decode(errors="replace")):
            return [_VERSION, number, b"200", b"OK", key.encode(), b""]
        self._turned_away += 1
        if self._turned_away == 1:
            who = f"of the key {key}" if key else "without a key"
            where = address.decode(errors="replace")
            logger.warning("turned away a process at %s %s (further ones are only counted)", where, who)
        return [_VERSION, number, b"400", b"unknown key", b"", b""]
