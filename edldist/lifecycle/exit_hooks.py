"""What a training process does at its end, whatever it used of edldist."""

from __future__ import annotations

import os

from edldist.lifecycle import gloo_threads, verdict

__all__ = ["install"]

_installed_in: int | None = None


def install() -> None:
    """Install the exit handlers, once in a process; called where an object of ours is made.

    Handlers run in reverse: what objects install for themselves comes before these.
    """
    global _installed_in
    if _installed_in == os.getpid():
        return
    _installed_in = os.getpid()
    gloo_threads.install()  # first, so that it runs last
    verdict.install()
