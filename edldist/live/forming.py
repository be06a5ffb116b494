"""What blocks while ranks meet is done aside, so that who waits for a rank that is gone again hears of it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from edldist.errors import RegroupError
from edldist.live.collective import first_line
from edldist.live.standing import Standing

__all__ = ["form"]

T = TypeVar("T")

_SLICE_S = 0.005


def form(work: Callable[[], T], standing: Standing) -> T:
    """Do what may block, unless the generation ends first: then it is left where it is, in its thread.

    torch's store answers nobody while the process that serves it is frozen, and gloo waits for a rank that
    does not come until its time-out.

    Raises:
        RegroupError: the generation has ended, or the work failed for want of a rank.
    """
    outcome: list[Any] = []
    ended = threading.Event()

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as exc:  # whoever waits is told, whatever it is
            outcome.append(exc)
        ended.set()

    threading.Thread(target=run, name="edldist-forming", daemon=True).start()
    while not ended.wait(_SLICE_S):
        if reason := standing.lost():
            raise RegroupError(reason)
    found = outcome.pop()
    if isinstance(found, RuntimeError):
        raise RegroupError(f"the ranks could not meet: {first_line(found)}") from found
    if isinstance(found, BaseException):
        raise found
    return found  # type: ignore[no-any-return]
