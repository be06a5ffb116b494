"""Tensors that a data loader's worker hands over to its parent, without a file of their own for each."""

from __future__ import annotations

import itertools
import operator
import os
import weakref
from collections.abc import Sequence
from multiprocessing.reduction import DupFd, ForkingPickler
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edldist.wire.shm.offers import SHARED_FROM_BYTES
from edldist.wire.shm.slab import Slab
from edldist.wire.shm.slots import Filled, of_this_process

__all__ = ["HandedOver", "in_own_slab", "in_workers_slab"]


class _Ticket:
    """What was stacked into a slab of a data loader's worker, until its parent is told.

    Attributes:
        slab: filled under ``generation``.
        sent: whether the parent has been told, so that the slab is the parent's to release.
    """

    __slots__ = ("generation", "sent", "slab")

    def __init__(self, slab: Slab) -> None:
        self.slab = slab
        self.generation = slab.generation
        self.sent = False

    def drop(self, pid: int) -> None:
        """Nobody in this process refers to it any more."""
        if not self.sent and os.getpid() == pid:
            self.slab.take_back()

    def handed_over(self, nbytes: int) -> Filled:
        """What the parent is told."""
        self.sent = True
        handle = None if self.slab.known else DupFd(self.slab.fd)
        return Filled(self.slab.address, self.generation, nbytes, handle)


class HandedOver(Tensor):
    """A tensor in a data loader's worker that arrives at its parent as an ordinary one.

    It lies in a slab, which the parent keeps mapped, or goes byte by byte. What torch computes from it is
    ordinary and goes torch's way, and so does it itself if it goes twice, or was moved.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    _ticket: _Ticket | None = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        """As an ordinary tensor, in whatever is not a message between processes."""
        return self.as_subclass(Tensor).__reduce_ex__(protocol)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: Any) -> Tensor:
        """An ordinary tensor."""
        copy: Tensor = self.as_subclass(Tensor).__deepcopy__(memo)  # type: ignore[no-untyped-call]
        memo[id(self)] = copy
        return copy

    def message(self) -> tuple[Any, tuple[Any, ...]]:
        """What makes it anew in another process (``pickle``)."""
        plain, ticket = self.as_subclass(Tensor), self._ticket
        if plain.is_cpu and plain.is_contiguous() and not plain.requires_grad and plain.numel():
            shape = tuple(plain.shape)
            if ticket is None and plain.nbytes < SHARED_FROM_BYTES:
                return _from_bytes, (_bytes_of(plain).tobytes(), plain.dtype, shape)
            if ticket is not None and not ticket.sent and plain.data_ptr() == ticket.slab.data.ctypes.data:
                return _from_slot, (ticket.handed_over(plain.nbytes), plain.dtype, shape)
        return _itself, (plain,)


def in_own_slab(slab: Slab, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """A tensor at the beginning of a slab, for this process; the slab is free when its storage is gone."""
    return _over(of_this_process.lend(slab, _nbytes(dtype, shape)), dtype, shape)


def in_workers_slab(slab: Slab, dtype: torch.dtype, shape: Sequence[int]) -> HandedOver:
    """The same for the parent of this process, whose the slab is from when it is told of the tensor."""
    memory, ticket = slab.hold(_nbytes(dtype, shape)), _Ticket(slab)
    weakref.finalize(memory, ticket.drop, os.getpid()).atexit = False
    tensor = _over(memory, dtype, shape).as_subclass(HandedOver)
    tensor._ticket = ticket
    return tensor


def _nbytes(dtype: torch.dtype, shape: Sequence[int]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def _over(memory: NDArray[np.uint8], dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """A tensor that is all of its storage and no view, as those are that nobody but a batch refers to."""
    storage = torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()
    strides = tuple(itertools.accumulate(reversed(shape[1:]), operator.mul, initial=1))[::-1]
    return torch.empty(0, dtype=dtype, device="cpu").set_(storage, 0, tuple(shape), strides)


def _bytes_of(tensor: Tensor) -> NDArray[np.uint8]:
    bytes_: NDArray[np.uint8] = tensor.reshape(-1).view(torch.uint8).numpy()
    return bytes_


def _from_slot(filled: Filled, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return _over(of_this_process.receive(filled), dtype, shape)


def _from_bytes(content: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    tensor = torch.empty(shape, dtype=dtype, device="cpu")
    _bytes_of(tensor)[:] = np.frombuffer(content, np.uint8)
    return tensor


def _itself(tensor: Tensor) -> Tensor:
    return tensor


ForkingPickler.register(HandedOver, HandedOver.message)
