"""``edldist.should_stop``: SIGTERM asks for a checkpoint and an exit; all ranks agree on the step."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

import torch
import torch.distributed as dist

__all__ = ["StopRequest", "should_stop"]

logger = logging.getLogger(__name__)


class StopRequest:
    """One process's view of whether its group is to stop.

    With several ranks each call exchanges one byte over a gloo group of its own and returns the
    *previous* call's answer: the exchange overlaps with the step between two calls, and every rank
    sees the same answer at the same step, at most one step after the signal. Call it once per step,
    on every rank, in the main thread.
    """

    def __init__(self) -> None:
        self._asked = False
        self._group: dist.ProcessGroup | None = None
        self._flag = torch.zeros(1, dtype=torch.uint8)
        self._pending: dist.Work | None = None

    def install(self) -> None:
        """Catch SIGTERM from now on; an earlier handler is called too."""
        earlier = signal.getsignal(signal.SIGTERM)

        def on_term(number: int, frame: FrameType | None) -> None:
            self._asked = True
            if callable(earlier):
                earlier(number, frame)

        signal.signal(signal.SIGTERM, on_term)

    def ask(self) -> None:
        """What SIGTERM does."""
        self._asked = True

    def __call__(self) -> bool:
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return self._asked
        if self._group is None:
            self._group = dist.new_group(backend="gloo")
        agreed = False
        if self._pending is not None:
            self._pending.wait()
            agreed = bool(self._flag.item())
        self._flag.fill_(int(self._asked))
        self._pending = None
        if not agreed:
            self._pending = dist.all_reduce(self._flag, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return agreed


_request: StopRequest | None = None


def should_stop() -> bool:
    """Whether to save a checkpoint and leave now, because SIGTERM came (to any rank).

    Call it once after each step, on every rank. Outside the main thread, where signals cannot be
    caught, it only follows what it saw installed there.
    """
    global _request
    if _request is None:
        _request = StopRequest()
        if threading.current_thread() is threading.main_thread():
            _request.install()
        else:
            logger.warning("should_stop() was first called outside the main thread: SIGTERM is not caught")
    return _request()
