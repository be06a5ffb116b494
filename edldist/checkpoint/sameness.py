"""What a checkpoint keeps of rank 0 for all ranks: whether it is equal on all of them.

Compared are structure, dtypes, shapes and every plain value, and the bits of tensors of the script's own
objects: all of a small one, a sample of a large one. Not compared are tensors inside the states of
modules and optimizers. Collectives keep parameters equal, up to rounding where ranks differ in hardware, and
of buffers such as running statistics DDP means rank 0's to count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from edldist.checkpoint.tree import Json, is_sharded, placeholders
from edldist.errors import CheckpointError
from edldist.ranks.agreement import Ranks

__all__ = ["DifferentStatesError", "SharedValues", "bits_of", "require_same", "values_of"]

SAMPLE_ELEMENTS = 1 << 16
"""Of larger tensors so many elements are compared, spread evenly."""
SHOWN_CHARACTERS = 80


class DifferentStatesError(CheckpointError):
    """The ranks gave states that differ where they have to be equal: a mistake in the program."""


class SharedValues(NamedTuple):
    """What one rank has of one object of the state.

    Attributes:
        tree: structure and plain values.
        bits: by key, a digest of a tensor's values, or ``sharded``; a tensor that is not here is compared
            by dtype and shape alone, which the tree has.
    """

    tree: Json
    bits: dict[str, str]


def values_of(tree: Json, tensors: Mapping[str, torch.Tensor], own_object: bool) -> SharedValues:
    """Collect what has to be equal.

    Args:
        tree: of one object of the state.
        tensors: by key, at least those of the tree.
        own_object: False if the object is a module or an optimizer.
    """
    bits = {key: "sharded" for key, _ in placeholders(tree) if is_sharded(tensors[key])}
    if own_object:
        bits |= {key: bits_of(tensors[key]) for key in _own_tensors(tree) if key not in bits}
    return SharedValues(tree, bits)


def bits_of(tensor: torch.Tensor) -> str:
    """A digest of a tensor's elements, in their order; of a sample if there are many. Any device."""
    flat = tensor.detach().resolve_conj().resolve_neg().reshape(-1)
    stride = -(-flat.numel() // SAMPLE_ELEMENTS) or 1
    sample = flat[::stride].contiguous().view(torch.uint8).cpu()
    return f"values with digest {hashlib.sha256(sample.numpy().tobytes()).hexdigest()[:16]}"


def require_same(ranks: Ranks, step: int, values: Mapping[str, SharedValues]) -> None:
    """Refuse a save whose ranks differ in what is kept of rank 0. A collective.

    The order of a dict's keys is no difference.

    Raises:
        DifferentStatesError: names the path, two ranks, and what each of them has there; on every rank.
    """
    everyone = ranks.gather({name: _digest(shared) for name, shared in values.items()})
    for rank, digests in enumerate(everyone):
        if digests.keys() != everyone[0].keys():
            where, left, right = next(_in_mappings(everyone[0], digests, "the state"))
            raise _differ(step, where, left, right, rank)
    suspects = [name for name in everyone[0] if any(other[name] != everyone[0][name] for other in everyone)]
    if not suspects:
        return
    first, *others = ranks.gather({name: list(values[name]) for name in suspects})
    for rank, other in enumerate(others, 1):
        for name in suspects:
            for where, left, right in (
                *_differences(first[name][0], other[name][0], name),
                *_in_mappings(first[name][1], other[name][1], ""),
            ):
                raise _differ(step, where, left, right, rank)


def _digest(shared: SharedValues) -> str:
    return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()


def _own_tensors(tree: Json) -> Iterator[str]:
    """Keys of the tensors that lie in no state of a module or an optimizer."""
    if isinstance(tree, list):
        for item in tree:
            yield from _own_tensors(item)
    elif isinstance(tree, dict):
        if "!tensor" in tree:
            yield tree["!tensor"]
        elif not _is_modules(tree) and not tree.keys() >= {"state", "param_groups"}:
            for item in tree.values():
                yield from _own_tensors(item)


def _is_modules(tree: Json) -> bool:
    return "!ordered" in tree and "_metadata" in tree["!ordered"][1]


Difference = tuple[str, Any, Any]
"""A path, and what is there on rank 0 and on another rank."""


def _differences(left: Json, right: Json, path: str) -> Iterator[Difference]:
    """Everything that differs in two trees."""
    if isinstance(left, dict) and isinstance(right, dict):
        if "!tensor" in left and "!tensor" in right:
            if left != right:
                yield left["!tensor"], *(f"{t['dtype']}{t['shape']}" for t in (left, right))
        elif left.keys() == right.keys() and (tag := next(iter(left), "")).startswith("!"):
            if tag == "!dict":
                left, right = ({json.dumps(key): item for key, item in tree[tag]} for tree in (left, right))
                yield from _in_mappings(left, right, path)
            else:
                yield from _differences(left[tag], right[tag], path)
        else:
            yield from _in_mappings(left, right, path)
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for number, (one, two) in enumerate(zip(left, right, strict=True)):
            yield from _differences(one, two, f"{path}/{number}")
    elif json.dumps(left) != json.dumps(right):  # 1, 1.0 and True are not the same
        yield path, left, right


def _in_mappings(left: Mapping[str, Json], right: Mapping[str, Json], path: str) -> Iterator[Difference]:
    if left.keys() != right.keys():
        yield f"{path}: keys", sorted(left.keys() - right.keys()), sorted(right.keys() - left.keys())
        return
    for key in left:
        yield from _differences(left[key], right[key], f"{path}/{key}" if path else key)


def _differ(step: int, where: str, left: Any, right: Any, rank: int) -> DifferentStatesError:
    return DifferentStatesError(
        f"step {step} was not saved: the states differ among ranks: {where}: {_shown(left)} on rank 0, "
        f"{_shown(right)} on rank {rank}. A checkpoint keeps rank 0's for all of them: pass the same objects "
        "on every rank and keep them equal, or return what each rank has of its own from rank_state_dict()"
    )


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}... ({len(text)} characters)"
