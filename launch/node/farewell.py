"""The last word of a student node: how it ends, for whoever waits for the job."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
import uuid

from edldist.errors import CoordinatorUnreachableError, EdlDistError
from edldist.keys.pair import STUDENT
from edldist.observe.health import Health
from edldist.wire.messages import Event
from edldist.wire.query import StatusClient
from edldist_launch.node.ranks import LOOK_S, LOOP
from edldist_launch.process.interrupts import Interrupts

__all__ = ["tell_end"]

logger = logging.getLogger(__name__)

DONE_S = 15.0
"""How long a node that has reached the end looks for a coordinator to tell: it may be being replaced."""
LEFT_S = 1.0
"""The same for any other end: whoever asked it to leave kills it after MARGIN_S (``edldist.grace``)."""


def tell_end(coordinator: str, code: int, interrupts: Interrupts, health: Health) -> None:
    """Let the job know how this node ends, if a coordinator is there to hear it.

    Args:
        coordinator: ``tcp://host:port`` or ``file:PATH``.
        code: what the node will exit with.
        interrupts: whoever insists does not wait for that.
        health: told of each try.
    """
    event = Event(
        event="node_ended",
        t=time.time(),
        fields={"host": socket.gethostname(), "code": code},
        reporter=f"node-{uuid.uuid4().hex[:12]}",
        seq=1,
        job=os.environ.get("EDLDIST_JOB", ""),
    )
    deadline = time.monotonic() + (DONE_S if code == 0 else LEFT_S)
    with contextlib.closing(StatusClient(coordinator, role=STUDENT)) as client:
        while time.monotonic() < deadline and not interrupts.insisted:
            health.turned(LOOP)
            try:
                client.tell(event, LOOK_S)
                return
            except CoordinatorUnreachableError:
                continue
            except EdlDistError as exc:
                logger.warning("the end of this node was not told: %s", exc)
                return
