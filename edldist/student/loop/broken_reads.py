"""What an error of a data loader leaves behind: worker processes, and a circle of references."""

from __future__ import annotations

import traceback

from torch._utils import ExceptionWrapper
from torch.utils.data import dataloader

__all__ = ["end_workers"]

_RERAISE = ExceptionWrapper.reraise.__code__


def end_workers(error: BaseException) -> None:
    """End the worker processes of the iterators that an error came through: nobody reads on behind it.

    An iterator joins its worker processes when it is finalised, which takes seconds where they are busy. The
    error holds it, by the frames of its traceback, for as long as a script holds the error. What torch
    raises for an error of a worker process is held by the frame that raises it besides, so that it is left
    to a garbage collector, in whichever thread that runs. So the iterators end here, in the thread that
    reads, and that circle is opened. Workers that persist are the data loader's, and go on.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is _RERAISE:
            frame.clear()
            continue
        if frame.f_code.co_filename != dataloader.__file__:
            continue  # to look at the names of a frame that is still running would keep what they name
        iterator = frame.f_locals.get("self")
        if (
            isinstance(iterator, dataloader._MultiProcessingDataLoaderIter)
            and not iterator._persistent_workers
        ):
            iterator._shutdown_workers()
