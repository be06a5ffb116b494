"""Handshakes of one link with keys: which key it expects at the other end, and why it is not let in.

::

            ┌─ the hub does not prove the key that is expected ─► the next key of that role, at once;
    dialled ┤                                                     after the last one the first, a while later
            ├─ the hub does not know this process's key ────────► the newest key of that role, a while later
            └─ both are proven ─► connected ┬─ this process's key was rotated ─► dialled, with the new one
                                            └─ it was retired ─► dialled a while later, with the keys of then

libzmq tells what became of a handshake on a socket beside the link's. It tries again by itself only in the
first case, and with the same key. What was queued is lost with the former socket, as where a connection
broke.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import zmq

from edldist.errors import ConfigError
from edldist.keys.pair import a_role

if TYPE_CHECKING:
    from edldist.wire.zmq.keys import SocketKeys

__all__ = ["Handshakes"]

logger = logging.getLogger(__name__)

_AGAIN_S = 1.0
_SUCCEEDED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_REFUSED = int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
_UNPROVEN = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
_numbers = itertools.count()

Dial = Callable[[Callable[[zmq.Socket[bytes]], None]], "zmq.Socket[bytes]"]


class Handshakes:
    """Owned by the thread of its poller.

    Args:
        keys: of this process.
        role: whose hub is at the other end.
        address: of that hub.
        dial: opens and connects a socket, which it passes on to be protected before.
        watch, forget: what to do with a socket that tells of handshakes; ``note`` once it has something.
    """

    def __init__(
        self,
        keys: SocketKeys,
        role: str,
        address: str,
        dial: Dial,
        watch: Callable[[zmq.Socket[bytes], Handshakes], None],
        forget: Callable[[zmq.Socket[bytes]], None],
    ) -> None:
        self._keys = keys
        self._role = role
        self._address = address
        self._dial = dial
        self._watch = watch
        self._forget = forget
        self._attempt = 0
        self._own = ""
        self._again_at: float | None = None
        self._events: zmq.Socket[bytes] | None = None
        self._told_of: zmq.Socket[bytes] | None = None  # whose handshakes those are
        self.trouble = ""
        """Why the link is not connected; empty while it is, or nothing is known."""

    def dial(self) -> zmq.Socket[bytes]:
        """A socket with the keys as they are now.

        Raises:
            ConfigError: nobody has a key of the role that is expected.
        """
        self._again_at = None
        self._own = self._keys.current
        return self._dial(self._protect)

    def due(self, now: float) -> bool:
        """Whether the link has to be dialled anew."""
        return self._own != self._keys.current or (self._again_at is not None and now >= self._again_at)

    def put_off(self, trouble: str) -> None:
        """Dialling failed for now."""
        self._again_at = time.monotonic() + _AGAIN_S
        if trouble != self.trouble:
            self.trouble = trouble
            logger.warning("%s", trouble)

    def retired(self) -> None:
        """The hub takes nothing in since this process's key was retired: its folder has a newer one soon."""
        if self._again_at is None:
            self._again_at = time.monotonic() + _AGAIN_S
            self._say(
                f"hears this process no more: the key of {self._keys.name} was retired. Put the newest keys "
                "(edldist keygen wrote them) into its folder"
            )

    def note(self) -> None:
        """Learn what became of handshakes."""
        if self._events is None:
            return
        with contextlib.suppress(zmq.Again):
            while True:
                event, _ = struct.unpack("=HI", self._events.recv_multipart(zmq.NOBLOCK)[0])
                if event == _SUCCEEDED:
                    self.trouble, self._again_at = "", None
                elif event == _REFUSED:
                    self._attempt = 0  # by then the hub may have its newest key
                    self._again_at = time.monotonic() + _AGAIN_S
                    self._say(
                        f"turned this process away: it does not know the key of {self._keys.name}. "
                        "Give both the same known.json (edldist keygen writes it)"
                    )
                elif event & _UNPROVEN and self._again_at is None:
                    self._attempt += 1
                    tried_all = self._attempt % self._keys.count(self._role) == 0
                    self._again_at = time.monotonic() + (_AGAIN_S if tried_all else 0.0)
                    if tried_all:
                        self._say(
                            f"proves none of the keys that this process knows of {a_role(self._role)}, or "
                            "has no keys: start it with --keys, with the same known.json"
                        )

    def close(self) -> None:
        """Hear of no more; to be called while the link's socket is open.

        libzmq tells from its I/O thread, and waits for ever where nobody listens any more: with it would all
        connections of the process. So the telling ends before the listening.
        """
        if self._told_of is not None and not self._told_of.closed:
            self._told_of.disable_monitor()
        self._told_of = None
        if self._events is not None:
            self._forget(self._events)
            self._events.close(linger=0)
            self._events = None

    def _protect(self, socket: zmq.Socket[bytes]) -> None:
        if not self._keys.connect(socket, self._role, self._attempt):
            raise ConfigError(
                f"cannot connect to {self._address}: known.json has no key of {a_role(self._role)}"
            )
        self.close()
        place = f"inproc://handshakes-{next(_numbers)}"
        socket.monitor(place, _SUCCEEDED | _REFUSED | _UNPROVEN)
        self._told_of = socket
        self._events = socket.context.socket(zmq.PAIR)
        self._events.connect(place)
        self._watch(self._events, self)

    def _say(self, what: str) -> None:
        trouble = f"the {self._role} at {self._address} {what}"
        if trouble != self.trouble:
            self.trouble = trouble
            logger.warning("%s", trouble)
