"""What a rank tells its node's supervisor when it ends: whether restarting it could help.

torchrun restarts a rank whatever ended it. A script that ended with an error marked ``final`` (a wrong
setting, a checkpoint of another model, a poisonous task) would only meet it again, so the rank leaves a
note (``notes``) for ``edldist student``, which then gives up at once.
"""

from __future__ import annotations

import atexit
import sys

from edldist.lifecycle.ending import end_quickly
from edldist.lifecycle.notes import leave_note
from edldist.wire.process import process_id

__all__ = ["install", "verdict"]

MAX_REASON = 1_000


def verdict() -> str | None:
    """The uncaught error that ends this process, in one line, if it is final."""
    # The interpreter keeps an uncaught exception here after printing it, before it runs exit handlers.
    error = getattr(sys, "last_value", None)
    if not getattr(error, "final", False):
        return None
    return " ".join(f"{type(error).__name__}: {_without_frames(str(error))}".split())[:MAX_REASON]


def _without_frames(text: str) -> str:
    """A message without the frames of tracebacks in it: they are in the rank's log, line by line."""
    kept, in_frames = [], False
    for line in text.splitlines():
        in_frames = line.startswith("Traceback (most recent") or (in_frames and line.startswith(" "))
        if not in_frames:
            kept.append(line)
    return "\n".join(kept)


def install() -> None:
    """Leave a note at exit, if this process has a supervisor that reads it."""
    atexit.register(_leave_verdict, process_id())


def _leave_verdict(process: str) -> None:
    if process_id() != process or getattr(sys, "last_value", None) is None:
        return  # a forked child's errors are its parent's to judge
    end_quickly()  # the agent waits for this end before it starts the group anew
    reason = verdict()
    if reason is not None:
        leave_note("end", reason)
