"""A change of the group of ranks, as an event, and this process's answer to it.

The coordinator tells a rank that its group has lost another one. Whoever reads that message makes a
``GroupChanged`` of it and calls ``group_changed``, and does not know what the answer is: to leave, so that
the agent starts a new group; or, where the group changes in process (``edldist.live``), to go on without the
lost one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

__all__ = [
    "EXIT_REGROUP",
    "GroupChangeHandler",
    "GroupChanged",
    "answer_by",
    "exit_to_regroup",
    "group_changed",
    "leave_group",
]

logger = logging.getLogger(__name__)

EXIT_REGROUP = 75
"""Exit code of a rank that wants to be started again in another group (EX_TEMPFAIL)."""


@dataclass(frozen=True, slots=True)
class GroupChanged:
    """A group is no longer what it was.

    Attributes:
        generation: the group that changed (see ``ranks.placement``); a rank that is in another one by now
            has nothing to do with it.
        reason: what happened, for people.
    """

    generation: str
    reason: str


GroupChangeHandler = Callable[[GroupChanged], None]
"""Called in the thread that heard of it, possibly while the training thread waits in a collective."""


def leave_group(change: GroupChanged) -> None:
    """End this process at once, from any thread, so that its agent starts it in a new group."""
    logger.warning("%s: leaving so that a new group forms", change.reason)
    exit_to_regroup()


_answer: GroupChangeHandler = leave_group


def answer_by(handler: GroupChangeHandler) -> None:
    """From now on, let a handler answer for this process."""
    global _answer
    _answer = handler


def group_changed(change: GroupChanged) -> None:
    """Let this process answer to a change; from any thread."""
    _answer(change)


def exit_to_regroup() -> NoReturn:
    """End this process now, without its exit handlers, with ``EXIT_REGROUP``."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(EXIT_REGROUP)
