"""Slots: slabs with batches, of a data loader's workers or of this process, mapped once and lent from here.

A data loader's worker fills a slab (``slab``) and tells its parent where it is. The parent maps it when
it first comes, and finds it mapped when it comes again. What the training loop and the label queue have of
a batch are tensors over that memory; with the last of them the slab is released, and its writer may fill
it. Teacher workers are told of this process's descriptor, and map the file once, too.

Who dies, or forks::

    the writer     what came from it stays until it is released, and its files go then
    this process   the writer is its child and ends; files without a name go with the last of both
    a fork         the child may hold what is in use, so none of that is filled again (``NEVER_AGAIN``)
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import weakref
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edldist.errors import SharedMemoryError
from edldist.wire.shm.allowance import Allowance, of_process
from edldist.wire.shm.memfile import FileAddress, address_of, check_sealed, is_open
from edldist.wire.shm.slab import DATA_START, NEVER_AGAIN, Slab

__all__ = ["Filled", "Handle", "Slots", "of_this_process"]

_DESCRIPTORS = 2  # of a slot: its file and its mapping


class Handle(Protocol):
    """A descriptor on its way from another process (``multiprocessing.reduction.DupFd``)."""

    def detach(self) -> int:
        """The descriptor, which the caller owns."""
        ...


class Filled(NamedTuple):
    """A slab that a data loader's worker has filled.

    Attributes:
        address: where the worker has it.
        generation: numbers what is in it.
        nbytes: of that.
        handle: brings its descriptor along, as long as the reader never had it.
    """

    address: FileAddress
    generation: int
    nbytes: int
    handle: Handle | None


class _Slot:
    """Another process's slab, mapped here: two descriptors."""

    def __init__(self, fd: int, writer: FileAddress, allowance: Allowance) -> None:
        self.fd = fd
        self.writer = writer
        self.address = address_of(fd)
        size = os.fstat(fd).st_size
        try:
            if (self.address.device, self.address.inode) != (writer.device, writer.inode):
                raise SharedMemoryError(f"process {writer.pid} sent another file than it said")
            check_sealed(fd)
            self.mapping = mmap.mmap(fd, size)
        except (OSError, ValueError, SharedMemoryError) as exc:
            os.close(fd)
            raise SharedMemoryError(f"cannot map {size} bytes of a data loader's worker: {exc}") from exc
        self.words = memoryview(self.mapping)[:16].cast("Q")
        self._allowance: Allowance | None = None
        with contextlib.suppress(SharedMemoryError):  # it is used once then
            allowance.take(_DESCRIPTORS)
            self._allowance = allowance

    @property
    def counted(self) -> bool:
        """Whether this process has descriptors to spare for it."""
        return self._allowance is not None

    def __del__(self) -> None:
        if hasattr(self, "words"):
            os.close(self.fd)
            if self._allowance is not None:
                self._allowance.give_back(_DESCRIPTORS)


class _Use:
    """One batch in a slot, as long as anybody here refers to it."""

    __slots__ = ("again", "generation", "owner", "place", "words")

    def __init__(self, owner: Slab | _Slot, generation: int, again: bool) -> None:
        self.owner = owner
        self.words = owner.words
        self.place = owner.address
        self.generation = generation
        self.again = again


class Slots:
    """Those of one process. For any thread.

    Args:
        allowance: of the descriptors that it may keep; None: that of the process.
        of_process: they are those of whichever process asks, and see its forks from the first slot on.
    """

    def __init__(self, allowance: Allowance | None = None, *, of_process: bool = False) -> None:
        self._allowance = allowance
        self._unwatched = of_process
        self._lock = threading.Lock()
        # By device and inode. Invariant: the writer of each lived when it first came.
        self._kept: dict[tuple[int, int], _Slot] = {}
        # By where the batch begins. Invariant: that memory stays mapped while it is in here.
        self._uses: dict[int, _Use] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def receive(self, filled: Filled) -> NDArray[np.uint8]:
        """What a worker has filled; the slab is released when nobody refers to it any more.

        Raises:
            SharedMemoryError: it cannot be mapped, or its worker is gone.
        """
        key = filled.address.device, filled.address.inode
        with self._lock:
            slot = self._kept.get(key)
            if filled.handle is not None:
                try:
                    fd = filled.handle.detach()
                except (OSError, EOFError) as exc:
                    raise SharedMemoryError(
                        f"process {filled.address.pid} of a data loader ended, a batch on its way: {exc!r}"
                    ) from exc
                if slot is None:
                    slot = _Slot(fd, filled.address, self._allowance or of_process())
                    if slot.counted and is_open(filled.address):
                        self._kept[key] = slot
                else:
                    os.close(fd)
            if slot is None:
                raise SharedMemoryError(f"process {filled.address.pid} fills a slab that never came here")
            again = self._kept.get(key) is slot
        if not 0 < filled.nbytes <= len(slot.mapping) - DATA_START:
            raise SharedMemoryError(f"{filled.nbytes} bytes in a slab of {len(slot.mapping)}")
        slot.words[0] = filled.generation
        memory: NDArray[np.uint8] = np.frombuffer(slot.mapping, np.uint8, filled.nbytes, DATA_START)
        self._begin(memory, _Use(slot, filled.generation, again))
        return memory

    def lend(self, slab: Slab, nbytes: int) -> NDArray[np.uint8]:
        """The first bytes of a slab of this process's own, which is free when nobody refers to them."""
        memory = slab.hold(nbytes)
        slab.words[0] = slab.generation
        self._begin(memory, _Use(slab, slab.generation, True))
        return memory

    def file_of(self, address: int) -> FileAddress | None:
        """The file in which a storage that begins at an address of this process lies, ``DATA_START`` behind
        its beginning; None if it is no slot's."""
        use = self._uses.get(address)
        return None if use is None else use.place

    def _begin(self, memory: NDArray[np.uint8], use: _Use) -> None:
        if self._unwatched:
            self._unwatched = False
            os.register_at_fork(before=self.spend, after_in_parent=self.spend, after_in_child=self.forget)
        address: int = memory.ctypes.data
        self._uses[address] = use
        weakref.finalize(memory, self._end, address, use, os.getpid()).atexit = False

    def _end(self, address: int, use: _Use, pid: int) -> None:
        """Nobody refers to a batch any more. In any thread, at any point of it: takes no lock."""
        if os.getpid() != pid:  # the child's copy ended: the batch is still in use
            return
        self._uses.pop(address, None)
        lives = not isinstance(use.owner, _Slot) or is_open(use.owner.writer)
        use.words[1] = use.generation if use.again and lives else use.generation | NEVER_AGAIN
        if not lives:
            self._forget_dead()

    def _forget_dead(self) -> None:
        used = {id(use.owner) for use in list(self._uses.values())}
        for key, slot in list(self._kept.items()):
            if id(slot) not in used and not is_open(slot.writer):
                self._kept.pop(key, None)

    def spend(self) -> None:
        """This process forks: the child may go on with what is in use, which is never filled again."""
        for use in list(self._uses.values()):
            use.again = False

    def forget(self) -> None:
        """This process was forked: its parent's slots are none of its own."""
        self._lock = threading.Lock()
        self._kept.clear()
        self._uses.clear()


of_this_process = Slots(of_process=True)
"""The slots of the process that asks, whoever forked it."""
