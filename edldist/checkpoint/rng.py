"""Random-number state of one rank: torch, CUDA, Python and numpy, kept without pickle."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from typing import Any

import torch

from edldist.checkpoint.tree import pack, unpack

__all__ = ["capture_rng", "restore_rng", "seed_new_rank"]


def capture_rng() -> bytes:
    """The state of every global random-number generator of this process, as JSON text.

    Covers torch's CPU generator, the current CUDA device's if CUDA is in use, Python's ``random`` and
    numpy's legacy generator if numpy is imported. Generators that a script made itself are its own to save.
    """
    state: dict[str, Any] = {
        "torch": torch.get_rng_state().numpy().tobytes(),
        "python": random.getstate(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        state["cuda"] = torch.cuda.get_rng_state().numpy().tobytes()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        state["numpy"] = numpy.random.get_state()
    tree, _ = pack(state, "rng")
    return json.dumps(tree).encode()


def restore_rng(saved: bytes) -> None:
    """Put back what `capture_rng` returned, possibly in another process."""
    state = unpack(json.loads(saved), _no_tensor)
    torch.set_rng_state(_byte_tensor(state["torch"]))
    random.setstate(state["python"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_byte_tensor(state["cuda"]))
    if "numpy" in state:
        import numpy

        numpy.random.set_state(state["numpy"])


def seed_new_rank(rank0: bytes, step: int, rank: int) -> int:
    """Seed a rank that did not exist at save time; equal arguments give equal seeds.

    Args:
        rank0: what `capture_rng` returned on rank 0 at save time.
        step: step of the checkpoint.
        rank: this rank.

    Returns:
        The seed, 0 <= seed < 2**63.
    """
    digest = hashlib.sha256(rank0 + f"|step {step}|rank {rank}".encode()).digest()
    seed = int.from_bytes(digest[:8], "big") >> 1
    torch.manual_seed(seed)
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)
    return seed


def _byte_tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _no_tensor(key: str) -> torch.Tensor:
    raise KeyError(key)
