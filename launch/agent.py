"""An agent that survives more than torchrun's own: ``python -m edldist_launch.agent AHEAD_S ARGS...``.

Signals that are repeated. torchrun's agent answers each SIGTERM by an exception, also while it waits for the
ranks that it has asked to leave; told three times (by whoever ends the whole tree of processes, and by the
parent that was told, too) it is gone before they have saved, and they are killed with it. This one heeds the
first.

Wall clocks that jump. Agents write wall-clock times into their store and drop whoever seems too old.
Measured on torch 2.13, two nodes: once the clock of one has jumped by an hour, it takes all others and itself
for dead, and these take it for dead. The group trains on, and falls apart for good at the next regrouping.
So agents get a clock that follows the wall clock as long as it drifts or is slewed, and ignores its jumps.

AHEAD_S is how far the wall clock was ahead of ``steady_s`` when it was compared with the coordinator's, or
``alone`` for a node that meets no other. An agent that is started again after a jump keeps it, and finds the
others all the same.

Other agents that die in the middle of a rendezvous. Who waits for a key that the dead one was to write
ends with an error, and torchrun's agent then closes the run, for all nodes and for good (torch 2.13). This
one leaves it open: its node starts another.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime, tzinfo
from types import FrameType

__all__ = ["ALONE", "EXIT_CLOSED", "SteadyClock", "ahead_s", "heed_once", "leave_open", "run_on", "steady_s"]

logger = logging.getLogger(__name__)

EXIT_CLOSED = 3
"""The agent's exit code when its run has ended on other nodes: nobody will ever meet there again."""
ALONE = "alone"
FOLLOWED_S = 1.0
"""A larger step is a jump. Agents bear twice of it between two nodes."""


def steady_s() -> float:
    """Seconds since this host started, the same for all its processes; runs on while it is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def ahead_s() -> float:
    """How far this host's wall clock is ahead of ``steady_s`` now."""
    return time.time() - steady_s()


class SteadyClock:
    """Unix seconds that never jump. For any thread: the worst of a race is one reading of the past.

    Args:
        ahead: of the wall clock, when it was right.
        wall, steady: where to read the time.
    """

    def __init__(
        self,
        ahead: float,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = steady_s,
    ) -> None:
        self._ahead_s = ahead
        self._wall = wall
        self._steady = steady
        self._jumped = False

    def now(self) -> float:
        steady = self._steady()
        jump_s = self._wall() - steady - self._ahead_s
        jumped = abs(jump_s) > FOLLOWED_S
        if jumped and not self._jumped:
            logger.warning(
                "the wall clock jumped by %.1f s; this node's rendezvous goes on without it", jump_s
            )
        self._jumped = jumped
        if not jumped:
            self._ahead_s += jump_s
        return steady + self._ahead_s


def run_on(clock: SteadyClock) -> None:
    """Let the rendezvous of this process read ``clock``.

    Raises:
        AttributeError: this torch's rendezvous reads its time elsewhere.
    """
    from torch.distributed.elastic.rendezvous import dynamic_rendezvous

    class SteadyDatetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            # A plain one: torch's agents pickle their state into the rendezvous store, and unpickle what lies
            # there. So whoever can write to that store runs code in every agent: keep strangers off its
            # port. Nothing that comes from anywhere else is unpickled, and nothing of ours reads that store.
            return datetime.fromtimestamp(clock.now(), tz)

    if not hasattr(dynamic_rendezvous, "datetime"):
        raise AttributeError(f"{dynamic_rendezvous.__name__} has no datetime")
    vars(dynamic_rendezvous)["datetime"] = SteadyDatetime


def leave_open() -> None:
    """Let an agent of this process that ends with an error not close the run for the others."""
    from torch.distributed.elastic.rendezvous.dynamic_rendezvous import DynamicRendezvousHandler

    close = DynamicRendezvousHandler.shutdown

    def shutdown(handler: DynamicRendezvousHandler) -> bool:
        # Called while the error that ends the agent passes through.
        return close(handler) if sys.exc_info()[0] is None else False

    DynamicRendezvousHandler.shutdown = shutdown  # type: ignore[assignment, method-assign]


def heed_once() -> None:
    """Let the first signal that asks this agent to end be the only one that it heeds."""
    from torch.distributed.elastic.multiprocessing import api

    def leave(signum: int, frame: FrameType | None) -> None:
        for other in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(other, signal.SIG_IGN)
        raise_it(signum, frame)

    raise_it = api._terminate_process_handler
    vars(api)["_terminate_process_handler"] = leave


def main() -> None:
    from torch.distributed import run
    from torch.distributed.elastic.rendezvous import RendezvousClosedError

    heed_once()
    if sys.argv[1] != ALONE:
        try:
            run_on(SteadyClock(float(sys.argv[1])))
        except AttributeError as exc:
            logger.warning("agents read the wall clock itself, and do not survive its jumps: %s", exc)
        leave_open()
    try:
        run.main(sys.argv[2:])
    except RendezvousClosedError:
        logger.error("this run has ended on other nodes; a new one needs another --run-id")
        sys.exit(EXIT_CLOSED)


if __name__ == "__main__":
    main()
