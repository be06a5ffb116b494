"""Ending a rank without the interpreter's search for garbage, which a restart would wait for.

Python looks through every object of a program before it ends, several times. With torch and what
``DistributedDataParallel`` imports (torch._dynamo, sympy) that takes 0.8 s of CPU (torch 2.13), and the agent
starts no new group before its ranks have ended.
"""

from __future__ import annotations

import contextlib
import gc
import io

__all__ = ["end_quickly"]


def end_quickly() -> None:
    """Let this process end without that search. Call it at exit; calling it again is harmless.

    Exit handlers, finalizers and the exit code stay what they were. Files are flushed here, because one that
    only garbage refers to is not closed any more. Other objects in reference cycles end without ``__del__``,
    which Python does not promise at exit either.
    """
    things = gc.get_objects()
    files = {kind for kind in set(map(type, things)) if issubclass(kind, io.IOBase)}
    for thing in things:
        if type(thing) in files:
            with contextlib.suppress(Exception):
                thing.flush()
    gc.disable()
    gc.freeze()
