"""Ends of transports that several files of this folder test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from edldist.wire.zmq.poller import ZmqPoller
from tests.contract.pair import Lent, Pair
from tests.contract.rig import TRANSPORTS, Rig


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.close()


@pytest.fixture
def carried(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Bytes that left through sockets since the last call."""
    count = [0]
    real = ZmqPoller._open

    def opened(self, kind, address):
        socket = real(self, kind, address)
        send = socket.send

        def counted(part, *args, **kwargs):
            count[0] += memoryview(part).nbytes
            return send(part, *args, **kwargs)

        object.__setattr__(socket, "send", counted)
        return socket

    monkeypatch.setattr(ZmqPoller, "_open", opened)

    def since() -> int:
        value, count[0] = count[0], 0
        return value

    return since


@pytest.fixture
def lent() -> Iterator[Lent]:
    lent = Lent(1 << 24)
    yield lent
    lent.close()


@pytest.fixture(params=TRANSPORTS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig = Rig(TRANSPORTS[request.param]())
    yield rig
    rig.close()
