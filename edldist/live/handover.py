"""Training state from the rank that has come furthest to those that have not, from memory to memory.

A step is applied by a rank only once the gradients of all of them have come, so whoever is a step ahead has
applied a whole one; where somebody is behind, the others' step has been done, and is handed on. Nobody votes.
Ranks of one step are made equal in what is no tensor, too: a change that came between the step and that of a
scheduler may have made them differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from edldist.checkpoint.snapshot import Snapshot, Stateful
from edldist.checkpoint.tree import pack, placeholders, unpack
from edldist.errors import CheckpointError
from edldist.ranks.placement import placement

__all__ = ["Progress", "behind_whom", "hand_over"]

_POSITIONS = "positions"


class Progress(NamedTuple):
    """How far a rank has come.

    Attributes:
        step: steps done; -1 for a rank that has done none and restored none.
        positions: what ``state_dict`` of the objects that belong to one generation was after it, by name.
    """

    step: int
    positions: Mapping[str, Any]


def hand_over(state: Mapping[str, Stateful], here: Progress) -> Progress:
    """Bring all ranks of the default group to the state of the one that has come furthest. A collective.

    Args:
        state: what is handed on, by name; equal on ranks of one step.
        here: how far this rank has come.

    Returns:
        How far all have come now.

    Raises:
        CheckpointError: the state of that rank does not fit this one's: they run different scripts.
    """
    place = placement()
    rank = place.rank
    snapshot = Snapshot(state)
    parts = [torch.zeros(2, dtype=torch.int64, device="cpu") for _ in range(place.world_size)]
    dist.all_gather(parts, torch.tensor([here.step, _digest(snapshot)], device="cpu"))
    source, behind = behind_whom([(int(part[0]), int(part[1])) for part in parts])
    if not behind:
        return here
    if rank == source:
        _tell(snapshot, here, source)
        return here
    return _take(snapshot, here, source, keep=rank in behind)


def behind_whom(stands: Sequence[tuple[int, int]]) -> tuple[int, list[int]]:
    """Which rank hands its state on, and who needs it.

    Args:
        stands: of each rank, its step and what tells states of one step apart.
    """
    steps = [step for step, _ in stands]
    source = steps.index(max(steps))
    new = steps[source] < 0  # ranks that are about to begin have to have the same weights, too
    others = (rank for rank in range(len(stands)) if rank != source)
    return source, [rank for rank in others if new or stands[rank] != stands[source]]


def _digest(snapshot: Snapshot) -> int:
    """Of all values that are no tensors, in 62 bits."""
    text = json.dumps(snapshot.tree, sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 2


def _tell(snapshot: Snapshot, here: Progress, source: int) -> None:
    positions, tensors = pack(dict(here.positions), _POSITIONS)
    tensors |= snapshot.tensors
    told = json.dumps({"step": here.step, _POSITIONS: positions, "tree": snapshot.tree}).encode()
    text = torch.frombuffer(bytearray(told), dtype=torch.uint8)
    dist.broadcast(torch.tensor([text.numel()], device="cpu"), source)
    dist.broadcast(text, source)
    for _, tensor in sorted(tensors.items()):
        if tensor.numel():
            dist.broadcast(tensor.detach().to("cpu").contiguous(), source)


def _take(snapshot: Snapshot, here: Progress, source: int, *, keep: bool) -> Progress:
    """Receive, which all ranks have to: gloo ends an operation between two ranks that is waited for in
    slices.

    Args:
        keep: whether this rank needs it.
    """
    size = torch.zeros(1, dtype=torch.int64, device="cpu")
    dist.broadcast(size, source)
    text = torch.empty(int(size), dtype=torch.uint8, device="cpu")
    dist.broadcast(text, source)
    told = json.loads(text.numpy().tobytes())
    tree, positions = told["tree"], told[_POSITIONS]
    tensors: dict[str, Tensor] = {}
    for key, info in sorted(placeholders([*tree.values(), positions])):
        tensor = torch.empty(info.shape, dtype=getattr(torch, info.dtype), device="cpu")
        if tensor.numel():
            dist.broadcast(tensor, source)
        if keep:
            tensors[key] = tensor
    if not keep:
        return here
    if differences := snapshot.differences(tree, {}):
        raise CheckpointError(
            "the state of the rank that has come furthest does not fit this rank's: start the same script "
            "everywhere. " + "; ".join(differences)
        )
    snapshot.put_back(tree, tensors)
    return Progress(told["step"], unpack(positions, tensors.__getitem__))
