"""Who may connect to a hub, and how often: bounds by address, so that a flood of greetings costs its sender.

::

    connects ──┬─ its address holds as many connections as one may ─┐
               ├─ all addresses hold as many as there may be ───────┼─► hung up on, before the handshake
               ├─ its address greets too often ─────────────────────┘
               └─► may go on ── breaks a bound (``backlog``) ─► hung up on, and fined: its address waits

Greetings are counted by a bucket for each address: it holds ``GREETINGS``, loses one with each connection and
``FINE`` with each that had to be cut off, and fills by ``GREETINGS_S`` a second. Honest processes greet once
and stay. Those that share an address with a flooder wait with theirs; who is connected stays so.
"""

from __future__ import annotations

import ipaddress
import resource

__all__ = ["Callers", "most_connections"]

GREETINGS = 4_096
"""As many members of one host may come back at once to a coordinator that was restarted."""
GREETINGS_S = 256.0
FINE = 1_024
_MOST_ADDRESSES = 16_384
_LEAST_CONNECTIONS = 64
_PREFIX_BITS = 64  # whoever has one address of IPv6 has all that begin like it


class Callers:
    """The connections of one hub, by the address of their other end. Pure.

    Args:
        most: connections at once; one address may hold half of them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._total = 0
        self._open: dict[str, int] = {}
        self._buckets: dict[str, tuple[float, float]] = {}  # by address: greetings left, and when

    def came(self, host: str, now: float) -> str:
        """Note a connection, which is there until ``left``.

        Args:
            host: numeric address of its other end.
            now: monotonic seconds.

        Returns:
            Why it may not stay; empty where it may.
        """
        caller = _caller(host)
        greetings = self._greetings(caller, now)
        held = self._open.get(caller, 0)
        self._open[caller] = held + 1
        self._total += 1
        self._keep(caller, max(0.0, greetings - 1), now)
        if held >= self._most // 2:
            return f"{held} connections are open from there; one address may hold {self._most // 2}"
        if self._total > self._most:
            return f"{self._total - 1} connections are open; there may be {self._most}"
        if greetings < 1:
            return f"it greets more than {GREETINGS_S:g} times a second, or has broken bounds before"
        return ""

    def left(self, host: str) -> None:
        caller = _caller(host)
        self._total -= 1
        self._open[caller] -= 1
        if not self._open[caller]:
            del self._open[caller]

    def fine(self, host: str, now: float) -> None:
        """One of its connections had to be cut off."""
        caller = _caller(host)
        self._keep(caller, max(0.0, self._greetings(caller, now) - FINE), now)

    def _greetings(self, caller: str, now: float) -> float:
        left, at = self._buckets.get(caller, (float(GREETINGS), now))
        return min(float(GREETINGS), left + GREETINGS_S * (now - at))

    def _keep(self, caller: str, greetings: float, now: float) -> None:
        self._buckets.pop(caller, None)
        if len(self._buckets) >= _MOST_ADDRESSES:
            del self._buckets[next(iter(self._buckets))]  # who has not called for longest
        self._buckets[caller] = (greetings, now)


def most_connections() -> int:
    """How many a hub takes: three quarters of the descriptors that this process may have."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        limit = 1 << 20
    return max(_LEAST_CONNECTIONS, 3 * limit // 4)


def _caller(host: str) -> str:
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host.partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((address, _PREFIX_BITS), strict=False))
