"""Whether a browser means this server, by the name that it calls it. Pure.

A page may ask whatever server its own name leads to, and read the answer. Whoever owns a name can let it lead
to 127.0.0.1 once his page is loaded somewhere (DNS rebinding): then it reads what a server there tells to its
own machine alone. The browser says in ``Host`` which name that was, and such a name is none of the server's.
An address is no name, so nobody can let it lead elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection

__all__ = ["is_expected"]

_PLACE = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^][:/@\s]+))(?::\d{1,5})?")
_OF_NETWORKS = (".svc", ".local", ".internal", ".localdomain", ".home.arpa")
"""Ends of names that only a network's own resolver knows: in the public DNS nobody can have one."""


def is_expected(told: str, own: Collection[str], on_loopback: bool) -> bool:
    """Whether a server may be called so.

    Args:
        told: what ``Host`` says: ``NAME``, ``NAME:PORT`` or ``[ADDRESS]:PORT``.
        own: names that it was given.
        on_loopback: whether it listens to its own machine alone. Else names without a dot, and those of
            networks, are taken, too: whoever could let one lead here reaches the server without a browser.
    """
    if (place := _PLACE.fullmatch(told.strip().lower())) is None:
        return False
    host = (place["address"] or place["name"]).rstrip(".")
    if _is_address(host) or host == "localhost" or host.endswith(".localhost"):
        return True
    if host in {name.lower().rstrip(".") for name in own}:
        return True
    return not on_loopback and ("." not in host or host.endswith(_OF_NETWORKS))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
