"""A collective that is waited for in slices, so that a rank which waits for a frozen one hears of it.

Nothing ends an operation of gloo's before its own time-out, whatever another thread does to the group (torch
2.13). So it is not waited for to its end: when the group has changed it is left where it is, and the group
with it, which is given back in the background once that time-out has come.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from edldist.errors import RegroupError

__all__ = ["await_work"]

_SLICE = timedelta(milliseconds=5)


def await_work(work: Any, changed: Callable[[], str]) -> None:
    """Wait for an operation (``dist.Work``), unless the group changes.

    Args:
        work: what an ``async_op=True`` call returned.
        changed: why the group is not what it was; empty while it is.

    Raises:
        RegroupError: the group has changed, or the operation failed, as it does when a rank is killed.
    """
    while True:
        try:
            work.wait(_SLICE)
            return
        except RuntimeError as exc:
            if work.is_completed():
                break
            if reason := changed():
                raise RegroupError(reason) from exc
    try:
        work.wait()  # it ended after the slice did: well, or with the error that counts
    except RuntimeError as exc:
        raise RegroupError(f"a rank cannot be reached: {str(exc).splitlines()[0]}") from exc
