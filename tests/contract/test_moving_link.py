"""Every transport follows an address file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edldist.address_file import AddressFile
from edldist.errors import ConfigError
from edldist.wire import moving
from edldist.wire.messages import Ack, Unknown
from tests.contract.rig import ANYWHERE, Rig, SteppedTransport, greet, take, until


@pytest.fixture
def say(rig: Rig, tmp_path: Path) -> Callable[[str], None]:
    """Write an address into ``c.json``, where this transport looks for it."""
    file = AddressFile(tmp_path / "c.json")

    def write(address: str) -> None:
        if isinstance(rig.transport, SteppedTransport):
            rig.transport.files[str(file.path)] = address
        else:
            file.write({"address": address})

    return write


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "SILENT_S", 0.3)
    monkeypatch.setattr(moving, "LOOK_S", 0.1)


def test_a_link_finds_its_hub_by_a_file_and_again_when_it_is_elsewhere(
    rig: Rig, say: Callable[[str], None], tmp_path: Path
) -> None:
    poller, servers = rig.poller(), rig.poller()
    link = poller.connect(f"file:{tmp_path / 'c.json'}", "t-1")
    assert not link.send(Unknown()) and link.address == ""

    first = servers.bind(ANYWHERE)
    say(first.address)
    until(poller, lambda: link.receive() is None and link.address != "")
    link.send(Unknown())
    first.send(take(servers, first)[0].sender, Ack(seq=1))
    assert take(poller, link)[0].message == Ack(seq=1)

    second = servers.bind(ANYWHERE)
    first.close()
    say(second.address)
    link.send(Unknown())
    until(poller, lambda: link.receive() is None and link.address == second.address)
    greet(servers, second, link, "t-1")


def test_a_file_without_an_absolute_path_is_refused(rig: Rig) -> None:
    with pytest.raises(ConfigError, match="names no file"):
        rig.poller().connect("file:c.json", "t-1")
