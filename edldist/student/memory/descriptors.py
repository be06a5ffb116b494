"""File descriptors that come with batches: a tensor that a data loader's worker hands over takes one."""

from __future__ import annotations

import errno
import os
import resource
import sys
from collections.abc import Callable, Sequence
from typing import Any

from edldist.errors import InputError
from edldist.student.memory.leaves import Leaf, is_host_tensor
from edldist.student.memory.structure import mapped
from edldist.wire.shm.offers import SHARED_FROM_BYTES

__all__ = ["explained", "keep_few"]

_SHARE = 4  # batches that are open may keep one in so many of the descriptors that the process may have


def keep_few(batch: Any, parts: Sequence[Leaf], held: Callable[[], int]) -> tuple[Any, int]:
    """Bring tensors out of shared memory where that keeps a descriptor for little, or too many are kept.

    Torch keeps a descriptor of every storage that came from another process for as long as it is used (its
    sharing strategy ``file_descriptor``), and many batches are open at once here. Small tensors are cheap to
    copy. Large ones stay where they are, because teacher workers on this host read them there, until the
    open batches keep a quarter of all descriptors that this process may have.

    Args:
        batch: what the data loader yielded.
        parts: the tensors and arrays in it.
        held: says how many descriptors the batches keep that are open.

    Returns:
        The batch, with some of its tensors in other memory, and how many descriptors it keeps.
    """
    # Tensors of an accelerator all count as shared.
    shared = [part for part in parts if is_host_tensor(part) and part.untyped_storage().is_shared()]
    if not shared:
        return batch, 0
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = sys.maxsize if limit == resource.RLIM_INFINITY else limit // _SHARE - held()
    kept: set[int] = set()
    moved: set[int] = set()
    for tensor in shared:
        place = tensor.untyped_storage().data_ptr()
        if tensor.nbytes >= SHARED_FROM_BYTES and (place in kept or len(kept) < room):
            kept.add(place)
        else:
            moved.add(id(tensor))
    if moved:
        batch = mapped(batch, lambda tensor: tensor.clone() if id(tensor) in moved else tensor)
    return batch, len(kept)


def explained(error: Exception) -> Exception:
    """The error to raise for one of the data loader: another one if descriptors have run out.

    Torch says ``received 0 items of ancdata`` then, which nobody understands.
    """
    ran_out = isinstance(error, OSError) and error.errno == errno.EMFILE
    if not ran_out and "items of ancdata" not in str(error):
        return error
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = InputError(
        f"this process has no file descriptor left ({_open_descriptors()} are open, RLIMIT_NOFILE is "
        f"{limit}), and every tensor that a data loader's worker hands over takes one. Raise the limit "
        f"(ulimit -n, up to {most} here), lower high_watermark or prefetch_factor, put fewer tensors into a "
        'batch, or call torch.multiprocessing.set_sharing_strategy("file_system")'
    )
    said.__cause__ = error
    return said


def _open_descriptors() -> str:
    try:
        return str(len(os.listdir("/proc/self/fd")))
    except OSError:  # to list them takes one
        return "all"
