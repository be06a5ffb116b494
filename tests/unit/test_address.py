"""Addresses: what may be typed, where to listen, and what this host calls itself."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edldist.address import (
    Address,
    listening_hosts,
    local_host_towards,
    needs_ipv6,
    parse_address,
    parse_advertised,
    parse_place,
    why_unresolved,
)
from edldist.errors import ConfigError
from tests.hosts import has_ipv6, with_ipv6


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("tcp://127.0.0.1:7070", "127.0.0.1", 7070),
        ("tcp://node-0.cluster.local:1", "node-0.cluster.local", 1),
        ("tcp://node_0:1", "node_0", 1),
        ("tcp://[::1]:65535", "::1", 65_535),
        ("tcp://[fe80::1%eth0]:80", "fe80::1%eth0", 80),
        ("tcp://*:5", "*", 5),
    ],
)
def test_host_and_port_are_taken_apart_and_put_together(text: str, host: str, port: int) -> None:
    assert parse_address(text, "test") == (host, port)
    assert parse_address(text, "test").url == text


NO_PLACES = [
    *("", "localhost", "h", "h:", ":1", "h:65536", "h:123456", "h:-1", "h:7070/", "h:7070\n", "a b:1", "h:٣"),
    *("::1:80", "[::1:80", "[::1]", "[h]:1", "[127.0.0.1]:1", "[]:1", "[::1%]:1", "[::1]80", "256.0.0.1:1"),
    *("h%eth0:1", "h/x:1", "-h:1", "[fd00::5]:7070:1", "user@h:1", "h?x:1", "\0:1"),
]


@pytest.mark.parametrize(
    "text", [*(f"tcp://{text}" for text in NO_PLACES), "http://h:1", "TCP://h:1", "h:7070", "tcp://h:0"]
)
def test_anything_else_is_refused_with_where_it_was_given(text: str) -> None:
    with pytest.raises(ConfigError, match="EDLDIST_COORDINATOR.*tcp://HOST:PORT"):
        parse_address(text, "EDLDIST_COORDINATOR")


@pytest.mark.parametrize("text", [*NO_PLACES, "tcp://h:1", "h:0"])
def test_a_place_has_the_same_grammar_without_its_scheme(text: str) -> None:
    with pytest.raises(ConfigError, match="--http: .*HOST:PORT"):
        parse_place(text, "--http")


def test_port_zero_is_for_those_who_bind() -> None:
    assert parse_address("tcp://h:0", "--bind", port_zero=True) == ("h", 0)
    assert parse_place("[::]:0", "--http", port_zero=True) == ("::", 0)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.5", "10.0.0.5", 0),
        ("10.0.0.5:7100", "10.0.0.5", 7100),
        ("[fd00::5]", "fd00::5", 0),
        ("[fd00::5]:7100", "fd00::5", 7100),
        ("node-0", "node-0", 0),
    ],
)
def test_an_advertised_host_may_go_without_a_port(text: str, host: str, port: int) -> None:
    assert parse_advertised(text) == (host, port)


@pytest.mark.parametrize("text", ["fd00::5", "*", "0.0.0.0", "[::]:7100", "h:", "tcp://h:1", "[fd00::5"])
def test_what_tells_nobody_where_to_connect_is_not_advertised(text: str) -> None:
    with pytest.raises(ConfigError, match="EDLDIST_ADVERTISE=.*HOST:PORT"):
        parse_advertised(text)


names = st.from_regex(r"[a-z0-9_]([a-z0-9._-]{0,20}[a-z0-9_])?", fullmatch=True)
hosts = st.one_of(names, st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))


@given(hosts, st.integers(0, 65_535))
def test_whatever_can_be_written_is_read_as_it_was(host: str, port: int) -> None:
    address = Address(host, port)
    try:
        assert parse_address(address.url, "test", port_zero=True) == address
    except ConfigError:
        assert host.replace(".", "").isdigit() and host.count(".") == 3, (
            "four numbers that are no IPv4 address"
        )
        return
    assert parse_place(str(address), "test", port_zero=True) == address
    assert address.is_everywhere or parse_advertised(str(address)) == address


@given(st.text(st.sampled_from("tcp:/*[]%.-0129abf\n ٣"), max_size=24))
@example("tcp://[::1%0]:1")
def test_no_text_is_read_as_something_that_is_written_otherwise(text: str) -> None:
    for prefix in ("", "tcp://"):
        try:
            address = parse_address(prefix + text, "test", port_zero=True)
        except ConfigError:
            continue
        assert parse_address(address.url, "test", port_zero=True) == address
        host, _, port = address.url.rpartition(":")
        assert (prefix + text).startswith(host) and int((prefix + text).rpartition(":")[2]) == int(port)


@pytest.mark.parametrize("host", ["*", "0.0.0.0", "::", "0:0:0:0:0:0:0:0"])
def test_a_listener_on_every_interface_is_told_from_others(host: str) -> None:
    assert Address(host, 7072).is_everywhere


@pytest.mark.parametrize("host", ["10.0.0.0", "110.0.0.0", "node-0.0.0.0", "::1", "fd00::"])
def test_a_listener_of_one_interface_is_not_everywhere(host: str) -> None:
    assert not Address(host, 7072).is_everywhere


V4 = (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("127.0.0.1", 9))
V6 = (socket.AF_INET6, socket.SOCK_DGRAM, 17, "", ("::1", 9, 0, 0))
NOWHERE_V4 = (socket.AF_INET, socket.SOCK_DGRAM, 17, "", ("0.0.0.1", 9))


@pytest.fixture
def names_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What the system says about every name from now on."""

    def answer(*found: object) -> None:
        def getaddrinfo(host: str, *args: object, **options: object) -> list[object]:
            if not found:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return list(found)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return answer


@with_ipv6
def test_a_name_with_only_an_ipv6_address_is_reached_by_it(names_of: Callable[..., None]) -> None:
    names_of(V6)
    assert needs_ipv6("six")
    assert local_host_towards("six", 7070) == "::1"
    assert listening_hosts("six") == ["::1"]


def test_where_both_lead_there_ipv4_is_taken(names_of: Callable[..., None]) -> None:
    names_of(V6, V4)
    assert not needs_ipv6("both")
    assert local_host_towards("both", 7070) == "127.0.0.1"
    assert listening_hosts("both") == ["127.0.0.1", "::1"]


@with_ipv6
def test_where_ipv4_leads_nowhere_ipv6_is_taken(
    names_of: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    names_of(NOWHERE_V4, V6)
    connect = socket.socket.connect

    def routed(self: socket.socket, target: tuple[str, int]) -> None:
        if target[0] == "0.0.0.1":
            raise OSError(101, "Network is unreachable")
        connect(self, target)

    monkeypatch.setattr(socket.socket, "connect", routed)
    assert needs_ipv6("both")
    assert local_host_towards("both", 7070) == "::1"


def test_a_name_that_does_not_resolve_yet_is_left_open(names_of: Callable[..., None]) -> None:
    names_of()
    assert needs_ipv6("later") is has_ipv6()
    assert listening_hosts("eth0") == ["eth0"]
    with pytest.raises(ConfigError, match="'later' does not resolve .Name or.*not known.*EDLDIST_ADVERTISE"):
        local_host_towards("later", 7070)
    assert why_unresolved("later") == "the name 'later' does not resolve (Name or service not known)"


def test_nothing_is_asked_about_what_is_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "getaddrinfo")
    assert not any(map(why_unresolved, ("10.0.0.5", "fd00::5", "*")))
    assert not needs_ipv6("10.0.0.5") and needs_ipv6("fd00::5")
    assert listening_hosts("10.0.0.5") == ["10.0.0.5"] and listening_hosts("::1") == ["::1"]


@with_ipv6
def test_everywhere_is_both_kinds() -> None:
    assert listening_hosts("*") == ["::", "0.0.0.0"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_host_reaches_itself_by_loopback(host: str) -> None:
    assert local_host_towards(host, 7070) in ("127.0.0.1", "::1")
