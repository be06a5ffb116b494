"""Addresses: what may be typed, where to listen, and by which of its addresses this host is reached.

One grammar for all of edldist::

    HOST      = NAME | IPv4 | "[" IPv6 "]" | "*"       "*": every interface; for those who listen
    place     = HOST ":" PORT
    address   = "tcp://" place

Inside the program a host stands without brackets. Whether IPv4 or IPv6 leads to a host is asked of the system
(``getaddrinfo`` and the routing table), never guessed from its spelling. Where both do it is IPv4.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import NamedTuple

from edldist.errors import ConfigError

__all__ = [
    "EVERYWHERE",
    "Address",
    "is_ipv6",
    "is_loopback",
    "listening_hosts",
    "local_host_towards",
    "needs_ipv6",
    "parse_address",
    "parse_advertised",
    "parse_place",
    "why_unresolved",
]

_PLACE = re.compile(r"(?:\[(?P<literal>[^\[\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_FOUR_NUMBERS = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
_SCOPE = re.compile(r"[A-Za-z0-9._-]+")
_ANY_PORT = 9  # to ask for a way to a host; nothing is sent
EVERYWHERE = "*"


class Address(NamedTuple):
    """A host, without brackets, and a TCP port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if is_ipv6(self.host) else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """As it is typed and travels: ``tcp://HOST:PORT``."""
        return f"tcp://{self}"

    @property
    def is_everywhere(self) -> bool:
        """Whether it stands for every interface of a host, which tells others nothing."""
        return self.host == EVERYWHERE or (_is_literal(self.host) and _literal(self.host).is_unspecified)


def parse_address(text: str, what: str, *, port_zero: bool = False) -> Address:
    """Host and port of ``tcp://HOST:PORT``.

    Args:
        what: where the address was given, for the error.
        port_zero: whether port 0 (the system picks one) makes sense here.

    Raises:
        ConfigError: anything else.
    """
    place = text.removeprefix("tcp://")
    address = None if place == text else _parse(place, None, port_zero)
    if address is None:
        raise ConfigError(
            f"{what}: {text!r} is no address; write tcp://HOST:PORT, as in tcp://10.0.0.5:7070 or "
            "tcp://[fd00::5]:7070"
        )
    return address


def parse_place(text: str, what: str, *, port_zero: bool = False) -> Address:
    """Host and port of ``HOST:PORT``.

    Raises:
        ConfigError: anything else.
    """
    address = _parse(text, None, port_zero)
    if address is None:
        raise ConfigError(f"{what}: {text!r} is not HOST:PORT, as in 127.0.0.1:7071 or [::1]:7071")
    return address


def parse_advertised(text: str) -> Address:
    """Where this host says that it is reached, ``HOST`` or ``HOST:PORT``; port 0 where none was given.

    Raises:
        ConfigError: anything else.
    """
    address = _parse(text, 0, True)
    if address is None or address.is_everywhere:
        raise ConfigError(
            f"EDLDIST_ADVERTISE={text!r}: use HOST or HOST:PORT, as in 10.0.0.5, [fd00::5] or node-0:7100"
        )
    return address


def is_ipv6(host: str) -> bool:
    """Whether a host is written as an IPv6 address."""
    return ":" in host


def is_loopback(host: str) -> bool:
    """Whether a host, as it is written, is this machine to itself, which nobody else reaches.

    Names are not looked up: of them only ``localhost`` is.
    """
    if not _is_literal(host):
        return host.lower().rstrip(".") == "localhost"
    address = _literal(host)
    return address.is_loopback or (
        isinstance(address, ipaddress.IPv6Address)
        and address.ipv4_mapped is not None
        and address.ipv4_mapped.is_loopback
    )


def needs_ipv6(host: str, port: int = _ANY_PORT) -> bool:
    """Whether connections to a host have to be made by IPv6.

    A name that does not resolve (yet) is taken for one that needs it, on systems that have it: sockets that
    were told so reach a host with an IPv4 address all the same.
    """
    if _is_literal(host):
        return is_ipv6(host)
    try:
        found = _ways(host, port)
    except OSError:
        return _has_ipv6()
    for family, target in found:
        if _local_end(family, target) is not None:
            return family == socket.AF_INET6
    return found[0][0] == socket.AF_INET6


def why_unresolved(host: str) -> str:
    """What is wrong with a host's name, in words; empty if it has an address, or is one."""
    if host == EVERYWHERE or _is_literal(host):
        return ""
    try:
        _ways(host, _ANY_PORT)
    except OSError as exc:
        return _no_address(host, exc)
    return ""


def local_host_towards(host: str, port: int) -> str:
    """The address of this host on its route to ``host``, which is one that ``host``'s network reaches.

    Nothing is sent: connecting a datagram socket only asks the routing table.

    Raises:
        ConfigError: the host has no address, or there is no route to any of them.
    """
    try:
        for family, target in _ways(host, port or _ANY_PORT):
            local = _local_end(family, target)
            if local is not None:
                return local
        reason = "there is none to any of its addresses"
    except OSError as exc:
        reason = _no_address(host, exc)
    raise ConfigError(
        f"cannot find a route to the coordinator's host {host!r}: {reason}. "
        "Check the name, or set EDLDIST_ADVERTISE to this host's address"
    )


def listening_hosts(host: str) -> list[str]:
    """What to bind, in the order in which it is to be tried, in order to listen at ``host``.

    ``*`` is ``::`` where the system has IPv6, which takes in IPv4 too, and then ``0.0.0.0``. A name is each
    of its addresses; one that has none may be that of an interface, and stays.
    """
    if host == EVERYWHERE:
        return ["::", "0.0.0.0"] if _has_ipv6() else ["0.0.0.0"]
    if _is_literal(host):
        return [host]
    try:
        return list(dict.fromkeys(str(target[0]) for _, target in _ways(host, _ANY_PORT)))
    except OSError:
        return [host]


def _parse(place: str, default_port: int | None, port_zero: bool) -> Address | None:
    match = _PLACE.fullmatch(place)
    if match is None:
        return None
    port = default_port if match["port"] is None else int(match["port"])
    host = match["literal"] or match["host"]
    if match["literal"] is not None:
        good = is_ipv6(host) and _is_literal(host)
    elif _FOUR_NUMBERS.fullmatch(host):
        good = _is_literal(host)
    else:
        good = host == EVERYWHERE or _NAME.fullmatch(host) is not None
    if not good or port is None or not (0 if port_zero else 1) <= port <= 65_535:
        return None
    return Address(host, port)


def _literal(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return ipaddress.ip_address(host)


def _is_literal(host: str) -> bool:
    address, percent, scope = host.partition("%")
    if percent and not _SCOPE.fullmatch(scope):
        return False
    try:
        return _literal(address).version == 6 or not percent
    except ValueError:
        return False


_Target = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
_Way = tuple[socket.AddressFamily, _Target]


def _ways(host: str, port: int) -> list[_Way]:
    """The addresses of a host, IPv4 first.

    Raises:
        OSError: it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    ways = [(family, target) for family, *_, target in found if family in (socket.AF_INET, socket.AF_INET6)]
    if not ways:
        raise OSError("it has no address")
    return sorted(ways, key=lambda way: way[0] == socket.AF_INET6)


def _no_address(host: str, exc: OSError) -> str:
    return f"the name {host!r} does not resolve ({exc.strerror or exc})"


def _local_end(family: socket.AddressFamily, target: _Target) -> str | None:
    """This host's own address on the way to another; None without a way."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            local: str = probe.getsockname()[0]
            return local
    except OSError:
        return None


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
        return True
    except OSError:
        return False
