"""A whole job by IPv6: what is advertised, bound and shown."""

from __future__ import annotations

import json
import urllib.request

import pytest

import edldist
from edldist.address import parse_address
from edldist.coordinator.course.history import RunHistory
from edldist.coordinator.pages.board import StatusBoard
from edldist.coordinator.pages.pages import CoordinatorPages
from edldist.environment import JobEnvironment
from edldist.errors import ConfigError
from edldist.observe.http import HttpServer
from edldist.student.loop.endpoint import endpoint
from edldist_launch.node.torchrun import meeting_host
from tests.harness import local_job
from tests.hosts import with_ipv6

pytestmark = with_ipv6


@pytest.mark.parametrize(
    ("advertised", "seen"),
    [("[::1]", "tcp://[::1]:"), ("127.0.0.1", "tcp://127.0.0.1:"), ("localhost", "tcp://localhost:")],
)
def test_workers_reach_a_rank_by_whatever_it_advertises(
    monkeypatch: pytest.MonkeyPatch, advertised: str, seen: str
) -> None:
    import torch

    monkeypatch.setenv("EDLDIST_ADVERTISE", advertised)
    with local_job() as job:
        job.teacher()
        loader = job.loader([{"id": torch.arange(4)}, {"id": torch.arange(4, 8)}], inputs="id")
        assert len(list(loader)) == 2
        assert loader._service.address.startswith(seen)


def test_a_rank_that_other_machines_would_reach_has_keys_or_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    monkeypatch.setenv("EDLDIST_ADVERTISE", "10.0.0.5")
    for variable in ("EDLDIST_KEYS", "EDLDIST_INSECURE"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(
        ConfigError, match=r"will not listen at tcp://\*:0 without keys: .*edldist keygen DIR"
    ):
        edldist.DistillLoader([{"id": torch.arange(4)}], inputs="id", coordinator="tcp://127.0.0.1:1")


def test_a_rank_that_is_told_nothing_listens_on_its_way_to_the_coordinator() -> None:
    nothing = JobEnvironment.read({})
    told = JobEnvironment.read({"EDLDIST_ADVERTISE": "[fd00::5]:7100"})
    assert endpoint("tcp://[::1]:7070", nothing) == ("tcp://[::1]:0", None)
    assert endpoint("tcp://127.0.0.1:7070", nothing) == ("tcp://127.0.0.1:0", None)
    assert endpoint("tcp://[::1]:7070", told) == ("tcp://*:7100", "fd00::5")
    with pytest.raises(ConfigError, match="EDLDIST_ADVERTISE='fd00::5'"):
        endpoint("tcp://[::1]:7070", JobEnvironment.read({"EDLDIST_ADVERTISE": "fd00::5"}))


def test_nodes_meet_at_what_they_advertise() -> None:
    assert meeting_host("tcp://[::1]:7070", 2, "[fd00::5]:7100") == "fd00::5"
    assert meeting_host("tcp://[::1]:7070", 2, None) == "::1"


@pytest.mark.parametrize(("listen", "ask"), [("[::1]", ["[::1]"]), ("*", ["127.0.0.1", "[::1]"])])
def test_the_status_is_served_to_both(listen: str, ask: list[str]) -> None:
    board = StatusBoard(lambda: board.publish(b'{"counts": 1}'), 60.0)
    server = HttpServer(f"{listen}:0", CoordinatorPages(board, RunHistory("one", 0.0, 0.0).tell))
    try:
        port = parse_address(f"tcp://{server.address}", "test").port
        assert server.address == f"{listen}:{port}"
        for host in ask:
            with urllib.request.urlopen(f"http://{host}:{port}/status", timeout=5) as page:
                assert json.load(page) == {"counts": 1}
    finally:
        server.close()
