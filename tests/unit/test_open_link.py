"""What may be said without keys, and how it is told."""

from __future__ import annotations

import socket

import pytest

from edldist.errors import ConfigError
from edldist.keys import open_link
from edldist.keys.open_link import check_open, check_reach, is_insecure, link_of
from edldist.wire.zmq.transport import ZmqTransport

HERE = [
    "tcp://127.0.0.1:0",
    "tcp://127.7.7.7:1",
    "tcp://[::1]:7070",
    "tcp://localhost:0",
    "tcp://LOCALHOST.:1",
]
BEYOND = ["tcp://0.0.0.0:7070", "tcp://*:0", "tcp://[::]:0", "tcp://10.0.0.5:7070", "tcp://[fd00::5]:1"]


@pytest.fixture(autouse=True)
def unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_link, "_said", set())
    for variable in (open_link.INSECURE_VARIABLE, open_link.KEYS_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(
    "address", [*HERE, "ipc:///run/job/queue", "inproc://here", "tcp://[::ffff:127.0.0.1]:1"]
)
def test_on_this_machine_nobody_needs_keys(address: str) -> None:
    check_open(address, "listen at")


@pytest.mark.parametrize("address", [*BEYOND, "tcp://no-such-host.invalid:7070"])
def test_beyond_it_everybody_does(address: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_open(address, "connect to")
    for words in (
        f"connect to {address}",
        "edldist keygen",
        "--keys DIR",
        "--insecure",
        "EDLDIST_INSECURE=1",
    ):
        assert words in str(refused.value)


def test_a_name_is_where_it_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian gives a host's own name to 127.0.1.1."""
    ways = {"own-name": ["127.0.1.1"], "both": ["127.0.1.1", "10.0.0.5"]}

    def look_up(host: str, port: int, **_: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_DGRAM, 17, "", (each, port)) for each in ways[host]]

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    check_open("tcp://own-name:7070", "connect to")
    with pytest.raises(ConfigError):
        check_open("tcp://both:7070", "connect to")


def test_who_allows_an_open_link_is_told_once_what_that_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("EDLDIST_INSECURE", "1")
    for address in BEYOND:
        check_open(address, "listen at")
    (record,) = caplog.records
    assert "nothing that goes beyond this machine is sealed" in record.getMessage()


@pytest.mark.parametrize(
    ("text", "allowed"), [("", False), ("0", False), ("No", False), ("1", True), ("true", True)]
)
def test_the_variable_is_yes_or_no(text: str, allowed: bool) -> None:
    assert is_insecure({"EDLDIST_INSECURE": text}) is allowed
    with pytest.raises(ConfigError, match="EDLDIST_INSECURE='maybe': use 1 or 0"):
        is_insecure({"EDLDIST_INSECURE": "maybe"})


@pytest.mark.parametrize("address", BEYOND)
def test_no_socket_goes_beyond_this_machine_without_keys(address: str) -> None:
    """Whoever binds or connects, in whichever role, does it by a poller."""
    poller = ZmqTransport(tensors=False).poller()
    try:
        with pytest.raises(ConfigError, match="will not listen at"):
            poller.bind(address)
        with pytest.raises(ConfigError, match="will not connect to"):
            poller.connect(address, "w")
    finally:
        poller.close()


def test_a_command_knows_before_it_loads_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    check_reach("file:/jobs/digits/coordinator.json")  # nobody knows yet
    with pytest.raises(ConfigError):
        check_reach("tcp://10.0.0.5:7070")
    monkeypatch.setenv("EDLDIST_KEYS", "keys")
    check_reach("tcp://10.0.0.5:7070")


@pytest.mark.parametrize(
    ("sealed", "addresses", "link"),
    [
        (True, ["tcp://0.0.0.0:7070"], "sealed"),
        (False, [*HERE, "", "ipc:///q"], "local"),
        (False, ["tcp://127.0.0.1:7070", "tcp://10.0.0.5:7070"], "insecure"),
        (False, ["tcp://[::]:7070"], "insecure"),
        (False, ["tcp://127.0.0.1:1", "tcp://node-0:7100"], "insecure"),
        (False, ["tcp://127.0.0.1:1", "tcp://what is this"], "insecure"),
    ],
)
def test_a_jobs_connections_are_what_its_widest_is(sealed: bool, addresses: list[str], link: str) -> None:
    assert link_of(sealed, addresses) == link
