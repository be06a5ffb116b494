"""``edldist.should_stop``: SIGTERM asks for a checkpoint and an exit; all ranks agree on the step.

So do SIGUSR1, SIGUSR2 and SIGHUP, by which batch systems warn of an end (``edldist.signals``), unless the
script has an answer of its own to them. Once asked, a process is asked: what is sent again changes nothing.

Who is asked decides what comes after. If every rank got SIGTERM (the job is stopped, or the agents
restart their ranks because a node joins), all leave with exit code 0. If only some did (their node
is preempted), all save the checkpoint together, those leave with 0, and the others leave with
``EXIT_REGROUP``, so that their agents start them again in a group without the ones that left.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
import logging
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType

import torch
import torch.distributed as dist

from edldist.lifecycle import exit_hooks, readers
from edldist.lifecycle.ending import end_quickly
from edldist.lifecycle.group_change import exit_to_regroup
from edldist.lifecycle.notes import leave_note
from edldist.observe import reporter
from edldist.ranks.placement import in_process_group, placement
from edldist.signals import ignore_signals, unclaimed

__all__ = ["StopRequest", "agree_by", "asked", "at_partial_stop", "should_stop"]

logger = logging.getLogger(__name__)

_LAST_EXCHANGE = datetime.timedelta(seconds=5)


class StopRequest:
    """One process's view of whether its group is to stop.

    With several ranks each call exchanges one byte over a gloo group of its own and returns the
    *previous* call's answer: the exchange overlaps with the step between two calls, and every rank
    sees the same answer at the same step, at most one step after the signal. Once it is yes, it stays
    yes. Call it once per step, on every rank, in the main thread.
    """

    def __init__(self) -> None:
        self.asked = False
        self._agreed = False
        self._group: dist.ProcessGroup | None = None
        self._flag = torch.zeros(1, dtype=torch.uint8, device="cpu")
        self._pending: dist.Work | None = None

    def install(self) -> None:
        """Catch SIGTERM and its kin from now on; an earlier handler of SIGTERM is called too."""
        earlier = signal.getsignal(signal.SIGTERM)

        def on_signal(number: int, frame: FrameType | None) -> None:
            self.asked = True
            reporter.expect_end()
            if number == signal.SIGTERM and callable(earlier):
                earlier(number, frame)

        for number in (signal.SIGTERM, *unclaimed()):
            signal.signal(number, on_signal)

    @property
    def agreed(self) -> bool:
        """Whether the group, or this process if it is alone, stops."""
        return self._agreed or self.asked

    @property
    def partial(self) -> bool:
        """Whether the group stops for the sake of other ranks than this one."""
        return self._agreed and not self.asked

    def __call__(self) -> bool:
        if _agree is not None:
            self._agreed = _agree()
            return self._agreed
        if not (in_process_group() and placement().world_size > 1):
            return self.asked
        if self._group is None:
            self._group = dist.new_group(backend="gloo")
        if self._pending is not None:
            self._pending.wait()
            self._pending = None
            self._agreed = bool(self._flag.item())
        if not self._agreed:
            self._flag.fill_(int(self.asked))
            self._pending = dist.all_reduce(self._flag, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return self._agreed

    def settle(self) -> None:
        """At the end of the process: let the exchange that is under way end, for a few seconds."""
        pending, self._pending = self._pending, None
        if pending is not None:
            with contextlib.suppress(RuntimeError):  # the other ranks are late, or gone
                pending.wait(_LAST_EXCHANGE)


_request: StopRequest | None = None
_agree: Callable[[], bool] | None = None
_closers: list[Callable[[], object]] = []


def should_stop() -> bool:
    """Whether to save a checkpoint and leave now, because SIGTERM came (to any rank).

    Call it once after each step, on every rank. Outside the main thread, where signals cannot be
    caught, it only follows what it saw installed there.

    Before the first call SIGTERM ends the process at once, as it does by default: no step was done yet, so
    there is nothing to save, and a script that waits in its preparation has no other way to hear of it.
    """
    global _request
    if _request is None:
        exit_hooks.install()
        _request = StopRequest()
        if threading.current_thread() is threading.main_thread():
            _request.install()
            leave_note("heeds")
        else:
            logger.warning("should_stop() was first called outside the main thread: SIGTERM is not caught")
        atexit.register(_leave)
    if threading.current_thread() is threading.main_thread():
        readers.excuse(asked)
    return _request()


def asked() -> bool:
    """Whether this very process got SIGTERM since ``should_stop`` was first called."""
    return _request is not None and _request.asked


def agree_by(agree: Callable[[], bool]) -> None:
    """From now on, let somebody else say whether all ranks stop, who asks them in another way."""
    global _agree
    _agree = agree


def at_partial_stop(closer: Callable[[], object]) -> None:
    """Have something closed before this process leaves with ``EXIT_REGROUP``."""
    _closers.append(closer)


def _leave() -> None:
    """At the end of a script that was asked to stop: leave quickly, and say so if it was for others."""
    if _request is None:
        return
    if getattr(sys, "last_value", None) is None:  # after an error the other ranks wait for this one's end
        _request.settle()
    if not _request.agreed:
        return
    if not _request.partial:
        if getattr(sys, "last_value", None) is None:
            leave_note("stopped")
        ignore_signals()
        end_quickly()
        return
    for closer in _closers:
        closer()
    reporter.flush()
    exit_to_regroup()
