"""Whether shared memory is used, and how much of the process it may take: descriptors, and bytes of slabs."""

from __future__ import annotations

import contextlib
import functools
import os
import resource
import threading
from pathlib import Path

from edldist.errors import ConfigError, SharedMemoryError

__all__ = ["Allowance", "memory_bytes", "of_process", "switched_on"]

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_UNKNOWN_MEMORY_BYTES = 16 << 30


class Allowance:
    """What is left. For any thread: a process may have several pollers, each with one of its own.

    Args:
        descriptors: of files and mappings.
        slab_bytes: of slabs of all readers together, which are backed by memory from the start.
    """

    def __init__(self, descriptors: int, slab_bytes: int) -> None:
        self.descriptors = descriptors
        self.slab_bytes = slab_bytes
        self._limit_bytes = slab_bytes
        self._lock = threading.Lock()

    def take(self, descriptors: int, slab_bytes: int = 0) -> None:
        """Use some.

        Raises:
            SharedMemoryError: there is not as much left; nothing was taken.
        """
        with self._lock:
            if self.descriptors < descriptors:
                raise SharedMemoryError(
                    "shared memory takes up a quarter of this process's descriptors; raise `ulimit -n`"
                )
            if self.slab_bytes < slab_bytes:
                used = self._limit_bytes - self.slab_bytes
                raise SharedMemoryError(
                    f"slabs of all peers take up {used >> 20} of {self._limit_bytes >> 20} MiB, a quarter of "
                    f"this process's memory; {slab_bytes >> 20} MiB more do not fit"
                )
            self.descriptors -= descriptors
            self.slab_bytes -= slab_bytes

    def give_back(self, descriptors: int, slab_bytes: int = 0) -> None:
        with self._lock:
            self.descriptors += descriptors
            self.slab_bytes += slab_bytes


@functools.cache
def of_process() -> Allowance:
    """The allowance of this process: a quarter of what it may open, and of the memory that it may use.

    The rest is for its sockets, files and data loader, and for the batches themselves.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    descriptors = limit if limit != resource.RLIM_INFINITY else 1 << 20
    return Allowance(descriptors // 4, memory_bytes() // 4)


def memory_bytes() -> int:
    """The machine's memory, or what this process's container may use of it."""
    try:
        most = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        most = _UNKNOWN_MEMORY_BYTES
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # without a limit it says "max"
            most = min(most, int(Path(path).read_text(encoding="ascii")))
    return most


def switched_on() -> bool:
    """Whether shared memory is to be used: ``EDLDIST_SHARED_MEMORY``, which is yes unless it is ``0``.

    Raises:
        ConfigError: that variable has another value.
    """
    value = os.environ.get("EDLDIST_SHARED_MEMORY", "1")
    if value not in ("0", "1"):
        raise ConfigError(f"EDLDIST_SHARED_MEMORY={value!r}: use 1 (the default) or 0")
    return value == "1"
