"""Where keys enter a transport: every socket passes here before it is bound or connected."""

from __future__ import annotations

from typing import Protocol

import zmq

__all__ = ["Keys"]


class Keys(Protocol):
    """The keys of one process: its own pair, and those whom it lets in or expects at the other end.

    What is meant to fill it is CURVE, which libzmq has built in: a hub gets the secret key of its role, a
    link its own pair and the public key of the hub, and an authenticator in the poller's context decides
    which public keys may connect, and notes the key of each as the user of its messages.
    """

    def protect(self, socket: zmq.Socket[bytes]) -> None:
        """Set a new socket's security options: a ROUTER is about to be bound, a DEALER to be connected."""
        ...

    def sender(self, frame: zmq.Frame) -> str:
        """The public key of who sent the message that this frame is part of."""
        ...
