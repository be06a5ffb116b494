"""Whether memory in a batch is reached from nowhere else, so that nobody is left who could write to it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edldist.student.memory.leaves import Leaf, is_host_tensor
from edldist.wire.shm.slots import of_this_process

__all__ = ["unshared"]

_Counts = tuple[int, ...] | None


def unshared(parts: Sequence[Leaf], at_least_bytes: int = 0) -> frozenset[int]:
    """Those of a batch's tensors and arrays that nothing but the batch and this list refers to.

    Their memory was made by torch or numpy, or came from another process, and every way to it is counted:
    the objects of Python, torch's own, the storage, and what the tensor is a view of. Whoever keeps one of
    them, a view, an array over it, a capsule of DLPack or the storage, keeps one of the counts up. Memory of
    anybody else's (of an array under a tensor, a buffer, a file) is never unshared.

    Counts are compared with those of a tensor that was just made, so nothing is assumed about what counts.
    To be wrong about one that is unshared costs nothing but time.

    Args:
        parts: each in one container that is not shared with anybody (see ``containers``), and in this list.
        at_least_bytes: smaller ones are left out.

    Returns:
        The ``id`` of each that is unshared.
    """
    large = [
        (is_host_tensor(part) or isinstance(part, np.ndarray)) and part.nbytes >= at_least_bytes
        for part in parts
    ]
    if not any(large):
        return frozenset()
    manner, found = _all_counts(parts, large)
    usual = _usual_counts(manner)
    return frozenset([id(part) for part, counts in zip(parts, found, strict=True) if counts in usual])


def _usual_counts(manner: _Counts) -> frozenset[_Counts]:
    """The counts of a tensor, a view and an array, just made and in one container and one list.

    How often the interpreter itself refers to an argument is not the same at all times: it calls functions
    in another way while something watches frames, as ``torch.compile`` does.

    Args:
        manner: of the time in question (see ``_all_counts``); at any other nothing is usual.
    """
    if (known := _known.get(manner)) is not None:
        return known
    boxes = ([_made()], [_made()[1:]], [np.empty(2)])
    made: list[Leaf] = [part for box in boxes for part in box]
    now, usual = _all_counts(made, [True] * len(made))
    if now is None or now != manner:  # watching has begun or ended meanwhile: the next batch asks again
        return frozenset()
    return _known.setdefault(manner, frozenset(usual) - {None})


_known: dict[_Counts, frozenset[_Counts]] = {}
"""What is usual, by the manner of counting: one entry for each way to call, of which there are few."""


def _all_counts(parts: Sequence[Leaf], asked: Sequence[bool]) -> tuple[_Counts, list[_Counts]]:
    """The counts of those that are asked about, always taken here, where the same names refer to them.

    Returns:
        How is counted now, as a tensor shows to which nothing but one name refers, and the counts. None for
        the first if that changed in between: another thread has begun to watch frames, or ended.
    """
    probe = _made()
    manner = _counts(probe)
    found = [_counts(part) if wanted else None for part, wanted in zip(parts, asked, strict=True)]
    return (manner if _counts(probe) == manner else None), found


def _made() -> Tensor:
    if torch.is_inference_mode_enabled():  # to leave a mode that is off takes longer than all the rest
        with torch.inference_mode(False):
            return torch.empty(2, device="cpu")
    return torch.empty(2, device="cpu")


def _counts(part: Leaf) -> _Counts:
    """How often what leads to the memory of a part is referred to; None if that cannot be said."""
    if isinstance(part, np.ndarray):
        return (sys.getrefcount(part),) if part.flags.owndata and type(part) is np.ndarray else None
    try:
        return _counts_of_tensor(part)
    except (AttributeError, NotImplementedError, RuntimeError):
        return None  # a release of torch without these counts, or a tensor without a storage


def _counts_of_tensor(tensor: Any) -> tuple[int, ...] | None:
    storage = tensor.untyped_storage()
    from_process = storage.is_shared() and storage.filename is None
    if not (from_process or storage.resizable() or of_this_process.file_of(storage.data_ptr()) is not None):
        return None
    uses = torch._C._storage_Use_Count(storage._cdata)
    counts = (sys.getrefcount(tensor), tensor._use_count(), sys.getrefcount(storage), uses)
    base = tensor._base
    return counts if base is None else (*counts, sys.getrefcount(base), base._use_count())
