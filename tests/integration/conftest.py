"""What tests of several files start, and how it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from edldist.wire.memory import MemoryTransport
from edldist.wire.zmq.transport import ZmqTransport
from tests.harness import LocalJob, local_job
from tests.integration.members import Running


@pytest.fixture(params=[MemoryTransport, ZmqTransport], ids=["memory", "zmq"])
def job(request: pytest.FixtureRequest) -> Iterator[LocalJob]:
    """A job in this process, once over queues and once over sockets; no role may have failed."""
    with local_job(request.param()) as made:
        yield made
        assert made.errors == []


@pytest.fixture
def memory_job() -> Iterator[LocalJob]:
    """The same over queues only."""
    with local_job(MemoryTransport()) as made:
        yield made
        assert made.errors == []


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def running(stack: contextlib.ExitStack) -> Running:
    running = Running()
    stack.callback(running.stop)
    return running
