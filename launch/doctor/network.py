"""Whether processes of this machine reach each other, their own host by its name, and a coordinator."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import time
from collections.abc import Iterator
from datetime import datetime, timezone

import psutil

from edldist.errors import CoordinatorUnreachableError, EdlDistError
from edldist.wire.query import StatusClient
from edldist_launch.doctor.finding import Finding, fail, ok, warn

__all__ = ["check_clock", "check_coordinator", "check_name", "check_ports"]

MEMBERS_PORT, HTTP_PORT = 7070, 7071
"""Of edldist coordinator, where nobody says others; for HTTP it takes any where that one is taken."""
SLOW_NAME_S = 1.0
MAX_SKEW_S = 5.0
"""From there on torchrun's agents may not meet; edldist says so at registration."""
OLDEST_TIME = datetime(2025, 1, 1, tzinfo=timezone.utc).timestamp()


def check_ports() -> Iterator[Finding]:
    """A connection over loopback, at a port that the system chooses; and the coordinator's default ports."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(5.0)
            with socket.create_connection(server.getsockname(), timeout=5.0) as client:
                accepted, _ = server.accept()
                accepted.close()
                client.close()
    except OSError as exc:
        yield fail(
            "ports",
            f"no connection over 127.0.0.1: {exc}",
            "bring the loopback device up (ip link set lo up); look for a firewall on it",
        )
        return
    if _taken(MEMBERS_PORT):
        yield warn(
            "ports",
            f"127.0.0.1 connects; {MEMBERS_PORT}, where edldist coordinator listens, is in use",
            "that may be a coordinator of yours (edldist status); else give another one --bind "
            "tcp://127.0.0.1:0, or a port",
        )
    elif _taken(HTTP_PORT):
        yield ok(
            "ports",
            f"127.0.0.1 connects; {MEMBERS_PORT} is free, {HTTP_PORT} is in use: a coordinator serves its "
            "status at another",
        )
    else:
        yield ok("ports", f"127.0.0.1 connects; {MEMBERS_PORT} and {HTTP_PORT} are free")


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def check_name() -> Iterator[Finding]:
    """Whether the own host name leads to this host: ranks of a gloo group are told it."""
    name = socket.gethostname()
    begun = time.monotonic()
    remedy = f"write a line such as `10.0.0.5 {name}` into /etc/hosts, or mend /etc/resolv.conf"
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(name, None)}
    except OSError as exc:
        took_s = time.monotonic() - begun
        yield warn(
            "name",
            f"{name}, the name of this host, leads nowhere ({exc.strerror or exc}, after {took_s:.1f} s): "
            "several ranks may not meet",
            remedy,
        )
        return
    took_s = time.monotonic() - begun
    own = {each.address.split("%")[0] for those in psutil.net_if_addrs().values() for each in those}
    strange = sorted(str(address) for address in found if not _is_own(str(address), own))
    if strange:
        yield warn("name", f"{name} leads to {', '.join(strange)}, which is not this host's", remedy)
    elif took_s > SLOW_NAME_S:
        yield warn("name", f"looking {name} up took {took_s:.1f} s", remedy)
    else:
        yield ok("name", f"{name} leads to {', '.join(sorted(map(str, found)))}")


def _is_own(address: str, own: set[str]) -> bool:
    bare = address.split("%")[0]
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(bare).is_loopback or bare in own
    return False


def check_clock() -> Iterator[Finding]:
    """Whether the clock of this machine tells a time that can be."""
    now = time.time()
    said = datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
    if now < OLDEST_TIME:
        yield fail("clock", f"it says {said}, which was before this version", "set it, and run an NTP client")
    else:
        yield ok("clock", said)


def check_coordinator(address: str, timeout_s: float = 5.0) -> Iterator[Finding]:
    """Whether a coordinator answers, and whether its clock says what this one does."""
    try:
        with contextlib.closing(StatusClient(address)) as client:
            client.query(timeout_s=timeout_s)  # names are looked up, the connection is made
            asked = time.time()
            status = client.query(timeout_s=timeout_s)
            answered = time.time()
    except CoordinatorUnreachableError:
        yield fail(
            "coordinator",
            f"none answers at {address} within {timeout_s:g} s",
            "is it running (edldist coordinator), bound to an address that this machine reaches, and no "
            "firewall between?",
        )
        return
    except EdlDistError as exc:
        yield fail("coordinator", f"{address}: {exc}", "install the same edldist version on both sides")
        return
    took_ms = 1000 * (answered - asked)
    yield ok("coordinator", f"{address} answers, {len(status.members)} members")
    skew_s = min(0.0, answered - status.wall_s) or max(0.0, asked - status.wall_s)
    if abs(skew_s) > MAX_SKEW_S:
        ahead = "ahead of" if skew_s > 0 else "behind"
        yield fail(
            "clock skew",
            f"this machine is {abs(skew_s):.1f} s {ahead} the coordinator's clock: nodes may not meet",
            "run an NTP client on both machines (chrony, systemd-timesyncd)",
        )
    else:
        yield ok("clock skew", f"{abs(skew_s):.3f} s from the coordinator's clock ({took_ms:.0f} ms to ask)")
