"""A data loader's worker processes that are ended together with their rank, by whoever ends a whole tree.

Such processes end at once by SIGTERM (or its kin, see ``edldist.signals``), while their rank has a
checkpoint to save. torch notices that a worker died (SIGCHLD) and raises ``DataLoader worker (pid 17) is
killed by signal: Terminated`` in the main thread, wherever that is: in the step, or in the save. A rank
that was told to stop, too, needs no reader any more. So here torch's handler is kept, and what it raises is
held back where the same signal comes to this process.

Not so while the data loader is being read: there the error ends the reading, which would wait for what nobody
brings. The batches before it still arrive.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from types import FrameType

from edldist.signals import ASKING

__all__ = ["excuse", "reading"]

logger = logging.getLogger(__name__)

_TORCH = "torch.utils.data._utils.signal_handling"
_KILLED = tuple(f"killed by signal: {signal.strsignal(number)}" for number in ASKING)
_TOGETHER_S = 1.0
"""Processes of a tree are told one after the other: the readers perhaps so long before their rank."""
_POLL_S = 0.005

_reading = False


class _Reading:
    """What ``reading`` returns: there is one, as this is done for every batch."""

    def __enter__(self) -> None:
        global _reading
        _reading = True

    def __exit__(self, *error: object) -> None:
        global _reading
        _reading = False


_HERE = _Reading()


def reading() -> _Reading:
    """The main thread reads a data loader in here."""
    return _HERE


def excuse(asked: Callable[[], bool]) -> None:
    """From now on a reader's end by such a signal is no error of a rank that is told so. Main thread only.

    To be called again and again: torch installs its handler with the first worker process.

    Args:
        asked: whether this process was told to stop.
    """
    handler = signal.getsignal(signal.SIGCHLD)
    if callable(handler) and getattr(handler, "__module__", "") == _TORCH:
        signal.signal(signal.SIGCHLD, _excusing(handler, asked))


def _excusing(
    handler: Callable[[int, FrameType | None], object], asked: Callable[[], bool]
) -> Callable[[int, FrameType | None], None]:
    def on_child(signum: int, frame: FrameType | None) -> None:
        try:
            handler(signum, frame)
        except RuntimeError as exc:
            if _reading or not any(end in str(exc) for end in _KILLED) or not _comes(asked):
                raise
            logger.warning("%s Asked to stop, this process needs it no longer", exc)

    return on_child


def _comes(asked: Callable[[], bool]) -> bool:
    """Whether this process is told to stop, too; its own handler may interrupt this one."""
    deadline = time.monotonic() + _TOGETHER_S
    while not asked() and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return asked()
