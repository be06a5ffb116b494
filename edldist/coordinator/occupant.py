"""Who listens where a coordinator should."""

from __future__ import annotations

import contextlib

from edldist.address import parse_address
from edldist.errors import ConfigError

__all__ = ["occupant"]


def occupant(address: str) -> str | None:
    """Which process listens on a port of this host, as far as the system tells."""
    import psutil

    with contextlib.suppress(psutil.Error, OSError, ConfigError):
        port = parse_address(address, "address").port
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and getattr(connection.laddr, "port", None) == port:
                if connection.pid is None:
                    return "Another user's process"
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return None
