"""Which process this is, told apart from every other one anywhere.

A process id is no name: containers that share a host's name share process ids too, and ids are given
away again. So each process has a name of its own, which it tells whoever it registers with or greets.
"""

from __future__ import annotations

import os
import threading
import uuid

__all__ = ["PROCESS_VARIABLE", "process_id", "route_of"]

PROCESS_VARIABLE = "EDLDIST_PROCESS"
"""``NAME@PID``: the name that whoever started a process gave to it. Its own children inherit the variable,
and see by the process id that it is not meant for them."""

_SHOWN = 12
"""Characters of a process's name that tell it from the others that have ever had one member's id."""

_lock = threading.Lock()
_name: str | None = None
_renewed_after_fork = False


def process_id() -> str:
    """The name of this process: the same for as long as it lives, and another one in a forked child.

    It is the one that its starter gave to it (``PROCESS_VARIABLE``), or a random one (32 hexadecimal digits).
    """
    global _name, _renewed_after_fork
    with _lock:
        if _name is None:
            name, _, pid = os.environ.get(PROCESS_VARIABLE, "").rpartition("@")
            _name = name if name and pid == str(os.getpid()) else uuid.uuid4().hex
            if not _renewed_after_fork and hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=_forget)
                _renewed_after_fork = True
        return _name


def route_of(member: str, process: str) -> str:
    """What the links of a member call themselves where they connect to.

    The process is a part of it. A host that was cut off holds on to its connections, and makes them anew once
    it is back; under the member's id alone its process would push out the one that took its place meanwhile,
    and what it says would count as the other's.
    """
    return f"{member}~{process[:_SHOWN]}"


def _forget() -> None:
    """In a forked child: it is a process of its own, and another thread may have held the lock."""
    global _name, _lock
    _name = None
    _lock = threading.Lock()
