"""Whole tensors in one safetensors file: raw bytes behind a JSON header, nothing that could execute."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

# safetensors would import it as it writes, in a thread that must import nothing.
import numpy.ctypeslib  # noqa: F401
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from edldist.checkpoint.tree import is_sharded
from edldist.errors import CheckpointError

__all__ = ["TENSORS_FILE", "keys_of", "read_tensors", "write_tensors"]

TENSORS_FILE = "tensors.safetensors"

# Those that safetensors 0.4.3 has. Others are written as bytes: dtype and shape are in the state's tree.
_NATIVE = frozenset(
    (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
)


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors in host memory, of any dtype and shape; no two may share memory.

    Raises:
        OSError: the disk is full, the folder is not writable, ...
    """
    plain = {key: tensor.resolve_conj().resolve_neg().contiguous() for key, tensor in tensors.items()}
    written = {key: t if t.dtype in _NATIVE else _as_bytes(t) for key, t in plain.items()}
    try:
        save_file(written, str(path))
    except SafetensorError as exc:
        # The library tells the operating system's error as text only.
        number = re.search(r"\(os error (\d+)\)", str(exc))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from exc


def keys_of(path: Path) -> list[str]:
    """The keys of a file's tensors."""
    with safe_open(str(path), "pt") as file:
        return list(file.keys())


def read_tensors(path: Path, targets: Mapping[str, torch.Tensor]) -> None:
    """Copy a file's tensors into those of the same keys, on any device; sharded ones take their part.

    Raises:
        CheckpointError: the file lacks a key, or holds another size.
    """
    with safe_open(str(path), "pt") as file:
        known = set(file.keys())
        for key, target in targets.items():
            if key not in known:
                raise CheckpointError(f"{path} lacks the tensor {key}")
            # This is mapped memory: whatever is kept must be a copy, so that the file may go or change.
            saved = file.get_tensor(key)
            if saved.dtype != target.dtype:
                saved = saved.view(-1).clone().view(target.dtype)  # bytes in the file may be unaligned
            if saved.numel() != target.numel():
                raise CheckpointError(
                    f"{path} holds {saved.numel()} elements of {key} instead of {target.numel()}"
                )
            saved = saved.view(target.shape)
            if is_sharded(target):
                from torch.distributed.tensor import distribute_tensor

                mesh, placements = target.device_mesh, target.placements  # type: ignore[attr-defined]
                saved = distribute_tensor(saved, mesh, placements, src_data_rank=None)
            target.copy_(saved)


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(-1).view(torch.uint8)
