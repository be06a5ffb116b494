"""Tensors that already lie in shared memory, and where a peer finds them.

The workers of a ``DataLoader`` hand their batches over in shared memory, as torch's storages: a file in
``/dev/shm`` whose name is removed at once (sharing strategy ``file_descriptor``, the usual one), or kept
until its last user closes it (``file_system``). With ``edldist.collate`` they lie in slots (``slots``). Such
a batch can be read where it lies.
"""

from __future__ import annotations

import logging
import mmap
import os
from typing import NamedTuple

import torch
from torch import Tensor

from edldist.errors import SharedMemoryError
from edldist.wire.shm.memfile import FileAddress, address_of, check_lendable
from edldist.wire.shm.offers import SHARED_FROM_BYTES
from edldist.wire.shm.slab import DATA_START
from edldist.wire.shm.slots import of_this_process

__all__ = ["Lent", "lend"]

logger = logging.getLogger(__name__)

# A storage of the file_system strategy begins with its count of users.
_COUNTER_BYTES = 64


class _Descriptor:
    """A descriptor that is closed with its last reference."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class Lent(NamedTuple):
    """Where a tensor's first byte lies, for as long as this and the tensor are kept."""

    address: FileAddress
    offset: int
    owner: object


def lend(tensor: Tensor) -> Lent | None:
    """Where other processes of this host find a tensor's memory; None if it is this process's alone.

    The tensor is left as it is: nothing is copied into shared memory for this.

    Args:
        tensor: any; only dense contiguous host tensors can be lent, and small ones are not worth it.
    """
    if (
        not tensor.is_cpu
        or tensor.layout is not torch.strided
        or tensor.nbytes < SHARED_FROM_BYTES
        or not tensor.is_contiguous()
        or tensor.is_neg()
    ):
        return None
    storage = tensor.untyped_storage()
    if (slot := of_this_process.file_of(storage.data_ptr())) is not None:
        return Lent(slot, DATA_START + tensor.data_ptr() - storage.data_ptr(), storage)
    if not storage.is_shared():
        return None
    if storage.filename is not None:  # a user's file, mapped with torch.from_file
        return None
    start = storage.data_ptr() % mmap.PAGESIZE
    owner: object = storage
    try:
        if start == 0:
            # Asked of a storage that is not kept by descriptor, this would move it to another place.
            fd, _ = storage._share_fd_cpu_()
        elif start == _COUNTER_BYTES:
            _, name, _ = storage._share_filename_cpu_()
            owner = opened = _Descriptor(f"/dev/shm{os.fsdecode(name)}")
            fd = opened.fd
        else:
            return None
        if fd < 0:
            return None
        check_lendable(fd, start + storage.nbytes())
        return Lent(address_of(fd), start + tensor.data_ptr() - storage.data_ptr(), owner)
    except (OSError, RuntimeError, SharedMemoryError) as exc:
        logger.debug("a tensor in shared memory cannot be lent: %s", exc)
        return None
