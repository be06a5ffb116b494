"""What the host that tests run on can do."""

from __future__ import annotations

import socket

import pytest

__all__ = ["has_ipv6", "with_ipv6"]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


with_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this host has no IPv6 on its loopback")
