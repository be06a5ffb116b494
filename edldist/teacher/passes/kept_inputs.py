"""Inputs that a model goes on referring to after its pass: their memory is made this worker's own."""

from __future__ import annotations

import logging
import mmap
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edldist.teacher.passes.forward import Computed
from edldist.wire.shm.offers import SHARED_FROM_BYTES
from edldist.wire.tensors import as_bytes

__all__ = ["KeptInputs"]

logger = logging.getLogger(__name__)

_Counts = tuple[int, int, int, int]


class KeptInputs:
    """Whether a model keeps inputs that may lie in memory of a student, which fills it again.

    Made before a pass, asked behind it, while the student still waits for the answer: until then its memory
    is what it was. What was kept is the model's from then on: each of its pages is written to, as they are,
    and a private mapping becomes this process's own where it is written to.

    Args:
        inputs: of the pass. Small ones came through the socket, and belong to whoever keeps them.
    """

    def __init__(self, inputs: Mapping[str, Tensor]) -> None:
        large = [name for name in inputs if inputs[name].nbytes >= SHARED_FROM_BYTES]
        self._before = {name: _counts(inputs, name) for name in large}

    def by_model(self, inputs: Mapping[str, Tensor], computed: Computed) -> bool:
        """Whether somebody else than ``computed`` refers to inputs by now."""
        kept = [name for name, before in self._before.items() if _more(inputs, name, before, computed)]
        for name in kept:
            _own(inputs[name])
        if kept:
            logger.info("the model keeps its inputs (%s): it gets copies from now on", ", ".join(kept))
        return bool(kept)


def _more(inputs: Mapping[str, Tensor], name: str, before: _Counts | None, computed: Computed) -> bool:
    if before is None:
        return True
    now = _counts(inputs, name)
    if now is None:
        return True
    itself, views, based = _used_by(computed, inputs, name)
    usual = before[0] + itself, before[1] + based, before[2], before[3] + views
    return any(count > expected for count, expected in zip(now, usual, strict=True))


def _used_by(computed: Computed, inputs: Mapping[str, Tensor], name: str) -> tuple[int, int, int]:
    """How often what a pass made is an input itself, other tensors in its memory, and views of it."""
    memory = inputs[name].untyped_storage()._cdata
    itself = 0
    others: dict[int, Tensor] = {}
    for made in (computed.outputs, computed.asked, computed.packed):
        for tensor in made.values():
            if tensor is inputs[name]:
                itself += 1
            elif tensor.layout is torch.strided and tensor.untyped_storage()._cdata == memory:
                others[id(tensor)] = tensor
    return itself, len(others), sum(other._base is inputs[name] for other in others.values())


def _counts(inputs: Mapping[str, Tensor], name: str) -> _Counts | None:
    """How often an input, torch's own object of it, its storage and torch's own of that are referred to.

    None if nobody knows.
    """
    tensor: Any = inputs[name]
    try:
        storage = tensor.untyped_storage()
        uses = torch._C._storage_Use_Count(storage._cdata)
        return sys.getrefcount(tensor), tensor._use_count(), sys.getrefcount(storage), uses
    except (AttributeError, NotImplementedError, RuntimeError):
        return None


def _own(tensor: Tensor) -> None:
    bytes_ = np.frombuffer(as_bytes(tensor), np.uint8)
    for places in (bytes_[:: mmap.PAGESIZE], bytes_[-1:]):
        np.bitwise_or(places, 0, out=places)
