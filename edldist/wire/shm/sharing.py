"""One process's side of shared memory: its page, by which peers prove that they can map its memory.

Two processes find out by trying. Each has a page of memory with a secret; whoever can answer with what
only a reader of that page can know is on this host, in this process namespace, and of this user.
"""

from __future__ import annotations

import hmac
import logging
import os
import time

import msgspec

from edldist.errors import SharedMemoryError
from edldist.wire.shm.allowance import Allowance, of_process
from edldist.wire.shm.memfile import FileAddress, address_of, is_open, make_file, open_file
from edldist.wire.shm.slabs import SlabPool

__all__ = ["Sharing", "has_page", "prove", "read_page"]

logger = logging.getLogger(__name__)

_PAGE_MAGIC = b"edldist\x01"
_SECRET_BYTES = 32
_LINGER_S = 2.0  # as long as a socket tries to get rid of what was sent
_encode = msgspec.msgpack.Encoder().encode


class Sharing:
    """This process's side of every pair of one poller: its page, its pools, what it logs once.

    Owned by the poller's thread.
    """

    def __init__(self, allowance: Allowance | None = None) -> None:
        self.allowance = of_process() if allowance is None else allowance
        self._page: tuple[int, FileAddress, bytes] | None = None
        self._said: set[str] = set()
        self._retired: list[tuple[SlabPool, FileAddress | None, float]] = []

    @property
    def address(self) -> FileAddress:
        """Where this process's page is.

        Raises:
            SharedMemoryError: there can be none.
        """
        return self._make_page()[1]

    def proof(self, address: FileAddress) -> bytes:
        """What a peer whose page is at ``address`` can say only after it has read this one's."""
        return prove(self._make_page()[2], address)

    def say_once(self, level: int, text: str, *values: object) -> None:
        if text not in self._said:
            self._said.add(text)
            logger.log(level, text, *values)

    def retire(self, pool: SlabPool, reader: FileAddress | None) -> None:
        """Close a pool as soon as its reader has received what is under way, or is dead, or after a while."""
        self._retired.append((pool, reader, time.monotonic() + _LINGER_S))
        self.sweep()

    def sweep(self) -> bool:
        """Close what can be closed of the retired pools; whether that were all of them."""
        now = time.monotonic()
        for entry in list(self._retired):
            pool, reader, deadline = entry
            if not pool.under_way or now > deadline or not has_page(reader):
                pool.close()
                self._retired.remove(entry)
        return not self._retired

    def close(self) -> None:
        """Wait a moment for those that still have to receive something; then close everything."""
        while not self.sweep():
            time.sleep(0.001)
        if self._page is not None:
            os.close(self._page[0])
            self._page = None

    def _make_page(self) -> tuple[int, FileAddress, bytes]:
        if self._page is None:
            secret = os.urandom(_SECRET_BYTES)
            fd = make_file(len(_PAGE_MAGIC) + _SECRET_BYTES, "-page")
            os.pwrite(fd, _PAGE_MAGIC + secret, 0)
            self._page = fd, address_of(fd), secret
        return self._page


def has_page(reader: FileAddress | None) -> bool:
    """Whether the process that had this page lives and has not closed it."""
    return reader is not None and is_open(reader)


def prove(secret: bytes, address: FileAddress) -> bytes:
    """What the process whose page is at ``address`` says to show that it knows a secret."""
    # Bound to the one who proves it: heard from a third process, it would be of no use to others.
    return hmac.digest(secret, _encode(address), "sha256")


def read_page(address: FileAddress) -> bytes:
    """A peer's secret. Nothing is taken from files that are no pages.

    Raises:
        SharedMemoryError: this process may not map it, or it is no page.
    """
    fd, _ = open_file(address, sealed=True, writable=False)
    try:
        content = os.pread(fd, len(_PAGE_MAGIC) + _SECRET_BYTES, 0)
    finally:
        os.close(fd)
    if not content.startswith(_PAGE_MAGIC) or len(content) < len(_PAGE_MAGIC) + _SECRET_BYTES:
        raise SharedMemoryError(f"process {address.pid} has no page at descriptor {address.fd}")
    return content[len(_PAGE_MAGIC) :]
