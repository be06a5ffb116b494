"""The kernel says which pages of a private mapping were written to, whoever wrote."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator

import numpy as np
import pytest

from edldist.wire.shm import pagemap
from edldist.wire.shm.memfile import make_file
from edldist.wire.shm.pagemap import Pages, look

PAGE, PAGES = mmap.PAGESIZE, 16


@pytest.fixture
def memory() -> Iterator[np.ndarray]:
    """A private mapping of a file whose pages are all there, but not mapped yet."""
    fd = make_file(PAGES * PAGE)
    mapping = mmap.mmap(fd, PAGES * PAGE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(fd)
    yield np.frombuffer(mapping, np.uint8)


def at(memory: np.ndarray, first: int, pages: int) -> Pages | None:
    return look(memory.ctypes.data + first * PAGE, pages * PAGE)


def test_pages_that_are_read_are_mapped_and_the_file_s(memory: np.ndarray) -> None:
    assert at(memory, 0, PAGES) == Pages(mapped=False, own=False)
    memory.sum()
    assert at(memory, 0, PAGES) == Pages(mapped=True, own=False)


def test_a_page_that_is_written_to_is_own_and_its_neighbours_are_not(memory: np.ndarray) -> None:
    memory.sum()
    ctypes.memset(memory.ctypes.data + 5 * PAGE + 17, 1, 1)
    assert at(memory, 0, PAGES) == Pages(mapped=False, own=True)
    assert at(memory, 0, 5) == at(memory, 6, PAGES - 6) == Pages(mapped=True, own=False)


def test_bytes_count_with_the_whole_of_their_pages(memory: np.ndarray) -> None:
    memory.sum()
    memory[5 * PAGE] = 1
    for first, last, own in ((6 * PAGE - 1, 6 * PAGE, True), (4 * PAGE, 5 * PAGE - 1, False)):
        pages = look(memory.ctypes.data + first, last - first + 1)
        assert pages is not None and pages.own is own


def test_where_the_kernel_does_not_say_nothing_is_known(
    memory: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pagemap, "_PAGEMAP", "/proc/self/no-such-file")
    assert at(memory, 0, PAGES) is None
    monkeypatch.setattr(pagemap, "_PAGEMAP", "/dev/null")
    assert at(memory, 0, PAGES) is None
