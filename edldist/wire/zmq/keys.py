"""Where keys enter a transport: every socket passes here before it is bound or connected.

CURVE, which libzmq has built in, encrypts each connection and proves both ends: a hub has the secret of its
role, a link its own pair and the public key of the role that it expects. The doorkeeper of the poller's
context decides who may connect to a hub, and notes the key of each as the user of its messages.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING

import zmq

from edldist.errors import ConfigError
from edldist.keys.live import job_keys

if TYPE_CHECKING:
    from edldist.keys.keyring import Keyring
    from edldist.keys.live import LiveKeys

__all__ = ["SocketKeys", "socket_keys"]

_USER_ID = "User-Id"


class SocketKeys:
    """The keys of one process, for its sockets.

    Args:
        live: this process's keys.
        admits: roles that may connect to hubs of this process.
    """

    def __init__(self, live: LiveKeys, admits: Collection[str] = ()) -> None:
        self._live = live
        self._admitted = frozenset(admits)

    @property
    def current(self) -> str:
        """The public key of this process: another one after a rotation."""
        return self._live.ring.own.public

    @property
    def name(self) -> str:
        """Whose key this process has."""
        own = self._live.ring.own
        return own.role if own.name == own.role else f"{own.role} {own.name}"

    def count(self, role: str) -> int:
        """How many keys of a role there are; 1 where there is none."""
        return max(1, len(self._live.ring.of_role(role, time.time())))

    @property
    def ring(self) -> Keyring:
        """The keys as they are now: another object once they have changed."""
        return self._live.ring

    def admits(self, public: str, domain: str = "") -> bool:
        """Whether a key may connect to a hub of this process. For any thread."""
        return self._live.ring.role_of(public, time.time()) in self._admitted

    def bind(self, socket: zmq.Socket[bytes]) -> None:
        """Protect a ROUTER that is about to be bound."""
        socket.curve_server = True
        socket.curve_secretkey = self._live.ring.own.secret.encode()
        socket.zap_domain = self._live.role.encode()

    def connect(self, socket: zmq.Socket[bytes], role: str, attempt: int) -> bool:
        """Protect a DEALER that is about to be connected to a hub of a role.

        Args:
            attempt: how many keys of that role were tried in vain: the newest comes first.

        Returns:
            False: there is no key of that role.
        """
        ring = self._live.ring
        servers = ring.of_role(role, time.time())
        if not servers:
            return False
        socket.curve_publickey, socket.curve_secretkey = ring.own.public.encode(), ring.own.secret.encode()
        socket.curve_serverkey = servers[attempt % len(servers)].encode()
        return True

    def sender(self, frame: zmq.Frame) -> tuple[str, str, str]:
        """Public key, role and key's name of who sent the message that this frame is part of.

        Both are empty where the key was good at the handshake and has been retired since.
        """
        public = str(frame.get(_USER_ID))
        owner = self._live.ring.owner_of(public, time.time())
        return (public, "", "") if owner is None else (public, owner.role, owner.name)


def socket_keys(role: str, *admits: str) -> SocketKeys | None:
    """This process's keys, from the folder that ``EDLDIST_KEYS`` names; None without it.

    Args:
        role: what this process is.
        admits: roles that may connect to its hubs.

    Raises:
        ConfigError: the folder has no usable key of that role, or this libzmq cannot use any.
    """
    live = job_keys(role)
    if live is not None and not zmq.has("curve"):
        raise ConfigError(
            f"this libzmq ({zmq.zmq_version()}) was built without CURVE, and seals nothing: install pyzmq's "
            "own (pip install --force-reinstall pyzmq)"
        )
    return None if live is None else SocketKeys(live, admits)
