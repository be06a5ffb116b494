"""Waits for the end of a job's students, however often its coordinator is replaced meanwhile."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

from edldist.errors import CoordinatorUnreachableError
from edldist.wire.query import StatusClient
from edldist_launch.view.ending import Ending

__all__ = ["await_end"]

logger = logging.getLogger(__name__)

ANSWER_S = 5.0
NEVER_BEGUN = "nothing could be prepared for them"


def await_end(
    coordinator: str,
    every_s: float,
    given_up: Path | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> str:
    """Return once the students have ended, with a word that says how.

    Args:
        coordinator: its address.
        every_s: how often to ask.
        given_up: a file that is there once the students will never begin.

    Raises:
        RefusedError, ProtocolVersionError: the coordinator has nothing to say to this one.
    """
    ending, incarnation, since = Ending(nodes_tell=True), "", 0
    over = silent = False
    with contextlib.closing(StatusClient(coordinator)) as client:
        while True:
            if given_up is not None and given_up.exists():
                return NEVER_BEGUN
            try:
                status = client.query(since, ANSWER_S)
            except CoordinatorUnreachableError:
                if not silent:
                    logger.warning("no coordinator answers at %s: asking on, for however long", coordinator)
                silent = True
            else:
                if silent:
                    logger.warning("the coordinator at %s answers", coordinator)
                silent = False
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
