"""What the C library does with memory that large messages leave behind."""

from __future__ import annotations

import functools

import numpy as np

__all__ = ["keep_freed_memory"]

_LARGEST_RAISE_BYTES = (32 << 20) - (64 << 10)


@functools.cache
def keep_freed_memory() -> None:
    """Let the heap keep what large frames leave behind: giving it back means to fault in every page again.

    libzmq takes a frame's memory from ``malloc``. glibc gives freed memory back to the system in chunks
    that grow with the largest block it saw freed (``M_MMAP_THRESHOLD`` in mallopt(3), at most 32 MiB on
    64-bit machines). One untouched block of nearly that size takes it there at once, as some step
    of most training loops does sooner or later. Environment variables that fix these thresholds stay in
    force, and other C libraries and allocators are not affected.
    """
    np.empty(_LARGEST_RAISE_BYTES, np.uint8)
