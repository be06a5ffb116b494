"""Addresses: what may be typed, and what this host calls itself."""

from __future__ import annotations

import pytest

from edldist.errors import ConfigError
from edldist.wire.address import local_host_towards, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tcp://127.0.0.1:7070", "127.0.0.1", 7070),
        ("tcp://node-0.cluster.local:1", "node-0.cluster.local", 1),
        ("tcp://[::1]:65535", "[::1]", 65_535),
        ("tcp://[fe80::1%eth0]:80", "[fe80::1%eth0]", 80),
        ("tcp://*:5", "*", 5),
    ],
)
def test_host_and_port_are_taken_apart(text: str, host: str, port: int) -> None:
    assert parse_address(text, "test") == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost",
        "localhost:7070",
        "http://h:1",
        "tcp://h",
        "tcp://h:",
        "tcp://:1",
        "tcp://h:0",
        "tcp://h:65536",
        "tcp://h:123456",
        "tcp://h:-1",
        "tcp://h:7070/",
        "tcp://h:7070\n",
        "tcp://a b:1",
        "tcp://::1:80",
        "tcp://[::1:80",
        "TCP://h:1",
    ],
)
def test_anything_else_is_refused_with_where_it_was_given(text: str) -> None:
    with pytest.raises(ConfigError, match="EDLDIST_COORDINATOR.*tcp://HOST:PORT"):
        parse_address(text, "EDLDIST_COORDINATOR")


def test_port_zero_is_for_those_who_bind() -> None:
    assert parse_address("tcp://h:0", "--bind", port_zero=True) == ("h", 0)
    with pytest.raises(ConfigError):
        parse_address("tcp://h:0", "--coordinator")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_host_reaches_itself_by_loopback(host: str) -> None:
    assert local_host_towards(host, 7070) in ("127.0.0.1", "[::1]")


def test_a_literal_of_the_newer_kind_is_answered_in_brackets() -> None:
    try:
        local = local_host_towards("[::1]", 7070)
    except ConfigError:
        pytest.skip("this host has no IPv6")
    assert local == "[::1]"


def test_a_name_that_does_not_resolve_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="no-such-host.invalid.*EDLDIST_ADVERTISE"):
        local_host_towards("no-such-host.invalid", 7070)
