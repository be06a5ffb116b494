"""What the kernel says of the pages of a mapping: whether they are there, and whose they are."""

from __future__ import annotations

import mmap
import os
from typing import NamedTuple

import numpy as np

__all__ = ["Pages", "look"]

_PAGEMAP = "/proc/self/pagemap"
_ENTRY_BYTES = 8
# The three highest bits of an entry: in memory, swapped out, a page of the file.
_FLAGS_FROM_BIT = 61
_ABSENT = 0b000
_OF_THE_FILE = 0b101


class Pages(NamedTuple):
    """Some pages of a private mapping of a file.

    Attributes:
        mapped: all of them can be read without a fault.
        own: some may be this process's own, because it wrote to them: they are not the file's any more.
    """

    mapped: bool
    own: bool


def look(address: int, nbytes: int) -> Pages | None:
    """How the pages of some bytes of this process are mapped; None where the kernel does not say.

    Some 0.02 ms a MiB, without the interpreter lock.
    """
    first = address // mmap.PAGESIZE
    count = -(-(address + nbytes) // mmap.PAGESIZE) - first
    try:
        fd = os.open(_PAGEMAP, os.O_RDONLY | os.O_CLOEXEC)
        try:
            raw = os.pread(fd, count * _ENTRY_BYTES, first * _ENTRY_BYTES)
        finally:
            os.close(fd)
    except OSError:
        return None
    flags = np.frombuffer(raw, np.uint64) >> np.uint64(_FLAGS_FROM_BIT)
    if len(flags) != count:
        return None
    of_file = flags == _OF_THE_FILE
    if of_file.all():
        return Pages(mapped=True, own=False)
    # What is swapped out, or moved just now, counts as own: nobody can tell, and that costs one more mapping.
    return Pages(mapped=False, own=bool((~of_file & (flags != _ABSENT)).any()))
