"""Waits for the end of a job's students, however often its coordinator is replaced meanwhile."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from edldist.errors import CoordinatorUnreachableError
from edldist.wire.query import StatusClient
from edldist_launch.view.ending import Ending

__all__ = ["await_end"]

ANSWER_S = 5.0


def await_end(coordinator: str, every_s: float, sleep: Callable[[float], object] = time.sleep) -> str:
    """Return once the students have ended, with a word that says how.

    Args:
        coordinator: its address.
        every_s: how often to ask.

    Raises:
        RefusedError, ProtocolVersionError: the coordinator has nothing to say to this one.
    """
    ending, incarnation, since = Ending(nodes_tell=True), "", 0
    over = False
    with contextlib.closing(StatusClient(coordinator)) as client:
        while True:
            with contextlib.suppress(CoordinatorUnreachableError):
                status = client.query(since, ANSWER_S)
                if status.incarnation != incarnation:  # its records are numbered anew
                    incarnation, since = status.incarnation, 0
                    continue
                since = status.seq
                ending.see(status)
                # Twice: to a coordinator that has just started, those who train on come within seconds.
                if over and ending.over:
                    return ending.word
                over = ending.over
            sleep(every_s)
