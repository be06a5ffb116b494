"""A collective that is waited for in slices, so that a rank which waits for a frozen one hears of it.

Nothing ends an operation of gloo's before its own time-out, whatever another thread does to the group (torch
2.13). So it is not waited for to its end: when the group has changed it is left where it is, and the group
with it, which is given back in the background once that time-out has come.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from edldist.errors import RegroupError
from edldist.live.standing import Standing

__all__ = ["await_work", "first_line"]

_SLICE = timedelta(milliseconds=5)


def await_work(work: Any, standing: Standing, timeout_s: float | None = None) -> None:
    """Wait for an operation (``dist.Work``), unless the group changes.

    An operation that fails ends the generation: what its other ranks had under way fails, too.

    Args:
        work: what gloo's group returned.
        standing: of the generation.
        timeout_s: None to wait for as long as it takes.

    Raises:
        RegroupError: the group has changed, or the operation failed, as it does when a rank is killed.
        RuntimeError: time is up first.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        try:
            work.wait(_SLICE)
            return
        except RuntimeError as exc:
            if work.is_completed():
                break
            if reason := standing.lost():
                raise RegroupError(reason) from exc
            if deadline is not None and time.monotonic() > deadline:
                raise
    try:
        work.wait()  # it ended after the slice did: well, or with the error that counts
    except RuntimeError as exc:
        standing.end(f"a rank cannot be reached: {first_line(exc)}")
        raise RegroupError(standing.ended) from exc


def first_line(error: BaseException) -> str:
    """What an error of torch's says, without its C++ frames."""
    return (str(error).splitlines() or [type(error).__name__])[0]
