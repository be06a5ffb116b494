"""Samples stacked into a batch where teacher workers on this host will read it."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info
from torch.utils.data._utils.collate import collate as collate_by
from torch.utils.data._utils.collate import collate_tensor_fn, default_collate_fn_map

from edldist.errors import SharedMemoryError
from edldist.student.memory.handed_over import HandedOver, in_own_slab, in_workers_slab
from edldist.wire.shm.allowance import Allowance, of_process, switched_on
from edldist.wire.shm.offers import SHARED_FROM_BYTES
from edldist.wire.shm.slab import Slab
from edldist.wire.shm.slabs import SlabPool

__all__ = ["collate"]

logger = logging.getLogger(__name__)

_MOST_SLABS = 32
_AGAIN_S = 5.0


def collate(samples: list[Any]) -> Any:
    """Make a batch of samples, as torch's ``default_collate`` does: a drop-in ``collate_fn``.

    ``DataLoader(data, collate_fn=edldist.collate)``: the same values, types and structure. Tensors of
    64 KiB or more are stacked into shared memory that is used again: the data loader's worker, its parent and
    teacher workers on this host map it once, where ``default_collate`` makes, maps and unmaps a file for each
    tensor of each batch. It is filled again when nobody in the parent refers to the batch any more: no
    tensor, no view, no array over it. Smaller tensors of a worker go along with the message, without a
    descriptor each.

    Whatever else comes goes torch's way: other tensors than dense ones on the host, subclasses, samples that
    differ, and everything when no memory is free or ``EDLDIST_SHARED_MEMORY=0``.

    Args:
        samples: of the data set: tensors, arrays, numbers, texts, and mappings and sequences of them.

    Raises:
        TypeError, RuntimeError: as of ``default_collate``.
    """
    if not switched_on():
        return default_collate(samples)
    return collate_by(samples, collate_fn_map=_HERE if get_worker_info() is None else _IN_A_WORKER)


class _Memory:
    """Where this process stacks its batches. Owned by the thread that collates."""

    def __init__(self) -> None:
        info = get_worker_info()
        allowance = of_process()
        if info is not None:
            # All workers of a data loader together get what one process may use.
            allowance = Allowance(allowance.descriptors, allowance.slab_bytes // info.num_workers)
        self.pool = SlabPool(allowance, most_slabs=_MOST_SLABS, most_bytes=allowance.slab_bytes)
        self._none_until = 0.0
        self._said = False

    def reserve(self, nbytes: int) -> Slab | None:
        """A free slab, or None."""
        if time.monotonic() < self._none_until:
            return None
        try:
            return self.pool.reserve(nbytes)
        except SharedMemoryError as exc:
            self._none_until = time.monotonic() + _AGAIN_S
            if not self._said:
                self._said = True
                logger.warning("batches are stacked by torch's default_collate for now: %s", exc)
            return None


_memory: _Memory | None = None
_forks_watched = False


def _reserve(nbytes: int) -> Slab | None:
    global _memory, _forks_watched
    if not _forks_watched:
        _forks_watched = True
        os.register_at_fork(after_in_child=_forget)
    if _memory is None:
        _memory = _Memory()
    return _memory.reserve(nbytes)


def _forget() -> None:
    """This process was forked: its parent's slabs are none of its own."""
    global _memory
    if _memory is not None:
        _memory.pool.close()
    _memory = None


def _stack(batch: Sequence[Tensor], *, collate_fn_map: dict[Any, Any] | None = None) -> Tensor:
    """A batch of tensors, in a slab if it is large."""
    first = batch[0]
    nbytes = first.nbytes * len(batch)
    slab = _reserve(nbytes) if nbytes >= SHARED_FROM_BYTES and _alike(batch, first) else None
    if slab is None:
        stacked: Tensor = collate_tensor_fn(batch, collate_fn_map=collate_fn_map)
        return stacked
    make = in_own_slab if get_worker_info() is None else in_workers_slab
    made = make(slab, first.dtype, (len(batch), *first.shape))
    torch.stack(list(batch), out=made.as_subclass(Tensor))
    return made


def _alike(batch: Sequence[Tensor], first: Tensor) -> bool:
    """Whether these are plain tensors of one shape and dtype, so that there are no two ways to stack them."""
    shape, dtype = first.shape, first.dtype
    return all(
        type(tensor) is Tensor
        and tensor.shape == shape
        and tensor.dtype is dtype
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and not (tensor.requires_grad or tensor.is_quantized or tensor.is_nested)
        for tensor in batch
    )


def _going_along(function: Callable[..., Any]) -> Callable[..., Any]:
    """What torch makes of samples, small tensors without a file of their own."""

    def made(batch: Sequence[Any], *, collate_fn_map: dict[Any, Any] | None = None) -> Any:
        result = function(batch, collate_fn_map=collate_fn_map)
        if type(result) is Tensor and result.nbytes < SHARED_FROM_BYTES:
            return result.as_subclass(HandedOver)
        return result

    return made


_HERE = {**default_collate_fn_map, Tensor: _stack}
_IN_A_WORKER = {kind: _going_along(function) for kind, function in _HERE.items()}
