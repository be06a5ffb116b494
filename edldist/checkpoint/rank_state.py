"""What differs by rank: states that every rank saves for itself, beside the one that all ranks share.

``rank-<k>.json`` holds the values of rank k, ``rank-<k>.safetensors`` their tensors, if there are any.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch

from edldist.checkpoint.tensorfile import read_tensors, write_tensors
from edldist.checkpoint.tree import Json, is_sharded, pack, placeholders, unpack
from edldist.errors import CheckpointError

__all__ = [
    "RankState",
    "RankStateful",
    "is_rank_file",
    "put_back",
    "rank_file",
    "read_rank_state",
    "write_rank_state",
]

Holders = Mapping[str, Sequence["RankStateful"]]
"""By name in the state: the object of that name, or what it holds, in a fixed order."""


@runtime_checkable
class RankStateful(Protocol):
    """An object of the state that has, beside what is equal on all ranks, something of each rank's own.

    ``rank_state_dict`` is called on every rank at each save, in the training thread. After the object's
    ``load_state_dict``, ``load_rank_state_dict`` is called with what the same rank returned, if the
    checkpoint was saved by as many ranks as there are now. Else with None, and the object decides what
    becomes of the states of ranks that are gone, or that nobody had.
    """

    def rank_state_dict(self) -> Any: ...

    def load_rank_state_dict(self, state: Any, /) -> Any: ...


class RankState(NamedTuple):
    """One rank's own values: JSON trees by name in the state, and copies of their tensors in host memory."""

    trees: dict[str, list[Json]]
    tensors: dict[str, torch.Tensor]

    @classmethod
    def taken(cls, holders: Holders) -> RankState:
        """Ask the holders.

        Raises:
            CheckpointError: a value of a type that no checkpoint can hold, or a sharded tensor.
        """
        trees: dict[str, list[Json]] = {}
        tensors: dict[str, torch.Tensor] = {}
        for name, things in holders.items():
            trees[name] = []
            for number, thing in enumerate(things):
                tree, found = pack(thing.rank_state_dict(), f"{name}/{number}")
                trees[name].append(tree)
                for path, tensor in found.items():
                    if is_sharded(tensor):
                        raise CheckpointError(
                            f"{path} of a rank's own state is a DTensor, of which all ranks hold parts: "
                            "return it from state_dict()"
                        )
                    tensors[path] = tensor.detach().to("cpu", copy=True)
        return cls(trees, tensors)


def rank_file(rank: int) -> str:
    """Name of the file with a rank's own values."""
    return f"rank-{rank:05d}.json"


def is_rank_file(name: str, rank: int | None = None) -> bool:
    """Whether a file holds a rank's own state: any rank's, or that of one rank."""
    stem = Path(name).stem
    return stem.startswith("rank-") and (rank is None or stem == Path(rank_file(rank)).stem)


def write_rank_state(folder: Path, rank: int, state: RankState) -> list[str]:
    """Write a rank's own state; returns the names of its files: none if all that it holds is None.

    Raises:
        OSError: the disk is full, the folder is not writable, ...
    """
    if all(item is None for items in state.trees.values() for item in items):
        return []
    names = [rank_file(rank)]
    (folder / names[0]).write_text(json.dumps(state.trees, allow_nan=False))
    if state.tensors:
        names.append(_tensor_file(rank))
        write_tensors(folder / names[1], state.tensors)
    return names


def read_rank_state(folder: Path, rank: int) -> dict[str, list[Any]]:
    """What `write_rank_state` wrote, as ``rank_state_dict`` returned it; tensors on the CPU."""
    trees = json.loads((folder / rank_file(rank)).read_text())
    tensors = {
        key: torch.empty(info.shape, dtype=getattr(torch, info.dtype), device="cpu")
        for key, info in placeholders(list(trees.values()))
    }
    if tensors:
        read_tensors(folder / _tensor_file(rank), tensors)
    return {name: [unpack(item, tensors.__getitem__) for item in items] for name, items in trees.items()}


def put_back(holders: Holders, saved: Mapping[str, Sequence[Any]]) -> None:
    """Give every holder what it had at the save, or None.

    Raises:
        CheckpointError: a holder did not accept it.
    """
    for name, things in holders.items():
        states = saved.get(name) or [None] * len(things)
        for thing, state in zip(things, states, strict=True):
            try:
                thing.load_rank_state_dict(state)
            except Exception as exc:
                raise CheckpointError(
                    f"state[{name!r}]: {type(thing).__qualname__} did not accept this rank's own saved "
                    f"state: {type(exc).__name__}: {exc}. The rest is restored already; do not train on"
                ) from exc


def _tensor_file(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"
