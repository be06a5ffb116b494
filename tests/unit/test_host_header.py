"""By which names a browser may call a server: none that somebody else could let lead to it."""

from __future__ import annotations

import pytest

from edldist.observe.host_header import is_expected


@pytest.mark.parametrize(
    "told",
    [
        *("127.0.0.1:7071", "127.0.0.1", "[::1]:7071", "[::1]", "10.0.0.5:80", "192.168.1.7"),
        *("localhost", "localhost:7071", "LOCALHOST:1", "localhost.", "job.localhost:7071", " 127.0.0.1 "),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_an_address_is_no_name_and_localhost_is_this_machines(told: str, alone: bool) -> None:
    assert is_expected(told, [], alone)


@pytest.mark.parametrize(
    "told",
    [
        *("evil.example", "evil.example:7071", "127.0.0.1.evil.example", "localhost.evil.example"),
        *("127.0.0.1:7071.evil.example", "evil.example.", "[::1].evil.example", "svc.example", "", ":7071"),
        *("a b.c", "xlocalhost.com", "127.1", "0x7f000001.example"),
    ],
)
def test_a_name_of_the_public_dns_is_not(told: str) -> None:
    for alone in (True, False):
        assert not is_expected(told, ["head.example", "10.0.0.5"], alone)


@pytest.mark.parametrize(
    "told", ["head", "head:7071", "edldist-coordinator.ns.svc:7071", "c.svc.cluster.local"]
)
def test_names_that_only_a_network_knows_are_for_servers_that_listen_to_it(told: str) -> None:
    assert is_expected(told, [], on_loopback=False)
    assert not is_expected(told, [], on_loopback=True)


def test_a_name_that_it_was_given_is_its_own() -> None:
    for alone in (True, False):
        assert is_expected("Head.Example:443", ["head.example."], alone)
