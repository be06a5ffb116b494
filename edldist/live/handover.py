"""Training state from the rank that has come furthest to those that have not, from memory to memory.

A step is applied by a rank only once the gradients of all of them have come, so whoever is a step ahead has
applied a whole one; where somebody is behind, the others' step has been done, and is handed on. Nobody votes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from edldist.checkpoint.snapshot import Snapshot, Stateful
from edldist.checkpoint.tree import pack, placeholders, unpack
from edldist.errors import CheckpointError
from edldist.ranks.placement import placement

__all__ = ["Progress", "hand_over"]

_POSITIONS = "positions"
Wait = Callable[[Any], None]


class Progress(NamedTuple):
    """How far a rank has come.

    Attributes:
        step: steps done; -1 for a rank that has done none and restored none.
        positions: what ``state_dict`` of the objects that belong to one generation was after it, by name.
    """

    step: int
    positions: Mapping[str, Any]


def hand_over(state: Mapping[str, Stateful], here: Progress, wait: Wait) -> Progress:
    """Bring all ranks of the default group to the state of the one that has come furthest. A collective.

    Args:
        state: what is handed on, by name; equal on ranks of one step.
        here: how far this rank has come.
        wait: for an operation; raises where the group has changed.

    Returns:
        How far all have come now.

    Raises:
        CheckpointError: the state of that rank does not fit this one's: they run different scripts.
    """
    place = placement()
    rank = place.rank
    parts = [torch.zeros(1, dtype=torch.int64, device="cpu") for _ in range(place.world_size)]
    wait(dist.all_gather(parts, torch.tensor([here.step], device="cpu"), async_op=True))
    steps = [int(part) for part in parts]
    furthest = max(steps)
    source = steps.index(furthest)
    # Ranks that are about to begin have to have the same weights, too.
    behind = [other for other, step in enumerate(steps) if step < furthest or (step < 0 and other != source)]
    if not behind:
        return here
    if rank == source:
        _tell(state, here, source, wait)
        return here
    return _take(state, here, source, wait, keep=rank in behind)


def _tell(state: Mapping[str, Stateful], here: Progress, source: int, wait: Wait) -> None:
    snapshot = Snapshot(state)
    positions, tensors = pack(dict(here.positions), _POSITIONS)
    tensors |= snapshot.tensors
    told = json.dumps({"step": here.step, _POSITIONS: positions, "tree": snapshot.tree}).encode()
    text = torch.frombuffer(bytearray(told), dtype=torch.uint8)
    wait(dist.broadcast(torch.tensor([text.numel()], device="cpu"), source, async_op=True))
    wait(dist.broadcast(text, source, async_op=True))
    for _, tensor in sorted(tensors.items()):
        if tensor.numel():
            wait(dist.broadcast(tensor.detach().to("cpu").contiguous(), source, async_op=True))


def _take(state: Mapping[str, Stateful], here: Progress, source: int, wait: Wait, *, keep: bool) -> Progress:
    """Receive, which all ranks have to: gloo ends an operation between two ranks that is waited for in
    slices.

    Args:
        keep: whether this rank needs it.
    """
    size = torch.zeros(1, dtype=torch.int64, device="cpu")
    wait(dist.broadcast(size, source, async_op=True))
    text = torch.empty(int(size), dtype=torch.uint8, device="cpu")
    wait(dist.broadcast(text, source, async_op=True))
    told = json.loads(text.numpy().tobytes())
    tree, positions = told["tree"], told[_POSITIONS]
    tensors: dict[str, Tensor] = {}
    for key, info in sorted(placeholders([*tree.values(), positions])):
        tensor = torch.empty(info.shape, dtype=getattr(torch, info.dtype), device="cpu")
        if tensor.numel():
            wait(dist.broadcast(tensor, source, async_op=True))
        if keep:
            tensors[key] = tensor
    if not keep:
        return here
    snapshot = Snapshot(state)
    if differences := snapshot.differences(tree, {}):
        raise CheckpointError(
            "the state of the rank that has come furthest does not fit this rank's: start the same script "
            "everywhere. " + "; ".join(differences)
        )
    snapshot.put_back(tree, tensors)
    return Progress(told["step"], unpack(positions, tensors.__getitem__))
