"""Addresses: what may be typed, and which one of this host the others should use."""

from __future__ import annotations

import re
import socket

from edldist.errors import ConfigError

__all__ = ["local_host_towards", "parse_address"]

_ADDRESS = re.compile(r"tcp://(?P<host>\[[0-9a-fA-F:.]+(%[^\s\[\]]+)?\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")


def parse_address(address: str, what: str, *, port_zero: bool = False) -> tuple[str, int]:
    """Host and port of ``tcp://host:port``.

    Args:
        what: where the address was given, for the error.
        port_zero: whether port 0 (the system picks one) makes sense here.

    Raises:
        ConfigError: anything else.
    """
    match = _ADDRESS.fullmatch(address)
    port = int(match["port"]) if match else -1
    if match is None or not (0 if port_zero else 1) <= port <= 65_535:
        raise ConfigError(
            f"{what}: {address!r} is no address; write tcp://HOST:PORT, as in tcp://10.0.0.5:7070"
        )
    return match["host"], port


def local_host_towards(host: str, port: int) -> str:
    """The address of this host on its route to ``host``, which is one that ``host``'s network reaches.

    Nothing is sent: connecting a datagram socket only asks the routing table.
    """
    bare = host.strip("[]")
    try:
        family, kind, proto, _, target = socket.getaddrinfo(bare, port or 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, proto) as probe:
            probe.connect(target)
            local: str = probe.getsockname()[0]
    except OSError as exc:
        raise ConfigError(
            f"cannot find a route to the coordinator's host {bare!r}: {exc}. "
            "Check the name, or set EDLDIST_ADVERTISE to this host's address"
        ) from exc
    return f"[{local}]" if ":" in local else local
