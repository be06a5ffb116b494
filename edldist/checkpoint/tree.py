"""Training state as JSON plus tensors: values that no pickle has to carry.

A state dict becomes a JSON tree in which every tensor is a placeholder with a key, a dtype and a
shape; the tensors travel beside it. What JSON does not know (tuples, integer keys, NaN, bytes,
numpy values) is written as an object with one key that starts with ``!``.
"""

from __future__ import annotations

import base64
import json
import math
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from edldist.checkpoint.arrays import array_fields, array_of, scalar_of
from edldist.errors import CheckpointError

__all__ = ["Json", "TensorInfo", "info_of", "is_sharded", "pack", "placeholders", "unpack"]

_DECIMAL_BITS = 1024
_DEEPEST = 100
Json = Any  # None, bool, int, float, str, list or dict of these


class TensorInfo(NamedTuple):
    """What a placeholder says of its tensor. The shape is the global one of a sharded tensor."""

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def info_of(tensor: torch.Tensor) -> TensorInfo:
    """The dtype and (global) shape of a tensor."""
    return TensorInfo(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))


def is_sharded(tensor: torch.Tensor) -> bool:
    """Whether ranks hold parts of the tensor (``DTensor``)."""
    # Not imported here, which takes half a second: where such a tensor exists, its module does.
    kind = getattr(sys.modules.get("torch.distributed.tensor"), "DTensor", None)
    return kind is not None and isinstance(tensor, kind)


def pack(value: object, path: str) -> tuple[Json, dict[str, torch.Tensor]]:
    """Split a value into a JSON tree and its tensors, which are referred to and not copied.

    What `unpack` gives back is of the same types and equal, to the last bit of a float. Only a tensor loses
    something: its place in an autograd graph, and that it was a ``Parameter``.

    Args:
        value: any nesting of dicts, lists, tuples, sets, numbers, strings, bytes, numpy values and
            tensors.
        path: name of the value; begins every tensor's key.

    Raises:
        CheckpointError: a value of another type, subclasses of these too, with its path and type.
    """
    tensors: dict[str, torch.Tensor] = {}
    return _pack(value, path, tensors), tensors


def _pack(value: Any, path: str, tensors: dict[str, torch.Tensor]) -> Json:
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:  # Python reads and writes no longer ones in decimal
        return value if value.bit_length() <= _DECIMAL_BITS else {"!int": f"{value:x}"}
    if kind is float:
        return value if math.isfinite(value) else {"!float": repr(value)}
    if path.count("/") > _DEEPEST:
        raise CheckpointError(f"{path[:80]}... is nested more than {_DEEPEST} levels deep, or holds itself")
    if isinstance(value, torch.Tensor):
        return _pack_tensor(value, path, tensors)
    if kind is list:
        return [_pack(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
    if kind is dict:
        if all(type(key) is str and not key.startswith("!") for key in value):
            return {key: _pack(item, f"{path}/{_part(key)}", tensors) for key, item in value.items()}
        return {"!dict": _pairs(value, path, tensors)}
    if kind is OrderedDict:
        # A module's state dict carries the versions of the modules' own formats as an attribute.
        attributes = {key: _pack(item, f"{path}/={key}", tensors) for key, item in vars(value).items()}
        return {"!ordered": [_pairs(value, path, tensors), attributes]}
    if kind is Counter:
        return {"!counter": _pairs(value, path, tensors)}
    if kind in (tuple, torch.Size):
        items = [_pack(item, f"{path}/{i}", tensors) for i, item in enumerate(value)]
        return {"!tuple" if kind is tuple else "!size": items}
    if kind in (set, frozenset):
        before = len(tensors)
        items = sorted((_pack(item, f"{path}/?", tensors) for item in value), key=json.dumps)
        if len(tensors) > before:
            raise CheckpointError(f"{path} is a set of tensors, which are told apart by identity: use a list")
        return {"!set" if kind is set else "!frozenset": items}
    if kind in (bytes, bytearray):
        return {"!bytes" if kind is bytes else "!bytearray": base64.b64encode(value).decode()}
    if kind is complex:
        return {"!complex": [_pack(value.real, path, tensors), _pack(value.imag, path, tensors)]}
    if kind is torch.dtype:
        return {"!dtype": str(value).removeprefix("torch.")}
    if isinstance(value, (np.ndarray, np.generic)):
        tag = "!array" if isinstance(value, np.ndarray) else "!scalar"
        return {tag: _pack(array_fields(value, path), path, tensors)}
    raise CheckpointError(
        f"{path} is a {kind.__module__}.{kind.__qualname__}, which no checkpoint can hold: return numbers, "
        "strings, bytes, lists, tuples, sets, dicts, numpy arrays or tensors from state_dict()"
    )


def _pack_tensor(tensor: torch.Tensor, path: str, tensors: dict[str, torch.Tensor]) -> Json:
    if any(kind.__name__ == "ShardedTensor" for kind in type(tensor).__mro__):
        raise CheckpointError(f"{path} is a ShardedTensor, which no checkpoint can hold: use DTensor instead")
    kind = type(tensor)
    if kind not in (torch.Tensor, torch.nn.Parameter) and not is_sharded(tensor):
        raise CheckpointError(
            f"{path} is a {kind.__module__}.{kind.__qualname__}, of which a checkpoint would keep a part "
            "only: return plain tensors from state_dict()"
        )
    if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_nested:
        what = "a meta" if tensor.is_meta else f"a {tensor.layout}, nested or quantized"
        raise CheckpointError(f"{path} is {what} tensor, which no checkpoint can hold: make it dense first")
    if path in tensors:
        raise CheckpointError(f"{path} is the path of two tensors: tell the keys before them apart")
    info = info_of(tensor)
    tensors[path] = tensor
    return {"!tensor": path, "dtype": info.dtype, "shape": list(info.shape)}


def _pairs(value: dict[Any, Any], path: str, tensors: dict[str, torch.Tensor]) -> Json:
    pairs = []
    for key, item in value.items():
        if not (key is None or type(key) in (str, int, bool, float)):
            kind = type(key)
            raise CheckpointError(
                f"{path} has the key {key!r} of type {kind.__qualname__}: use strings or numbers as keys"
            )
        pairs.append([_pack(key, path, tensors), _pack(item, f"{path}/{_part(key)}", tensors)])
    return pairs


def _part(key: object) -> str:
    """One step of a path; different keys of a dict give different steps."""
    if type(key) is int:
        return str(key) if key.bit_length() <= _DECIMAL_BITS else hex(key)
    if type(key) is not str:
        return f"={key!r}"
    plain = key and "/" not in key and key[0] not in '"=' and not key.lstrip("-").isdigit()
    return key if plain else json.dumps(key).replace("/", "\\u002f")


def placeholders(tree: Json) -> Iterator[tuple[str, TensorInfo]]:
    """Key and description of every tensor of a tree, in the tree's order."""
    if isinstance(tree, list):
        for item in tree:
            yield from placeholders(item)
    elif isinstance(tree, dict):
        if "!tensor" in tree:
            yield tree["!tensor"], TensorInfo(tree["dtype"], tuple(tree["shape"]))
        else:
            for item in tree.values():
                yield from placeholders(item)


def unpack(tree: Json, tensors: Callable[[str], torch.Tensor]) -> Any:
    """Undo `pack`.

    Args:
        tree: what `pack` returned, or that after a trip through JSON text.
        tensors: gives the tensor of a placeholder's key.

    Raises:
        CheckpointError: the tree has a tag that this version does not know.
    """
    if isinstance(tree, list):
        return [unpack(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    tag = next(iter(tree), "")
    if not tag.startswith("!"):
        return {key: unpack(item, tensors) for key, item in tree.items()}
    if tag == "!tensor":
        return tensors(tree[tag])
    decode = _DECODERS.get(tag)
    if decode is None:
        raise CheckpointError(
            f"the checkpoint holds a value of kind {tag!r}, which this version of edldist does not know: "
            "restore it with the version that wrote it"
        )
    body = tree[tag]
    return decode([unpack(item, tensors) for item in body] if isinstance(body, list) else body)


def _ordered(parts: Any) -> OrderedDict[Any, Any]:
    pairs, attributes = parts
    made = OrderedDict(pairs)
    vars(made).update(attributes)
    return made


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "!int": lambda text: int(text, 16),
    "!float": float,
    "!dict": dict,
    "!ordered": _ordered,
    "!counter": lambda pairs: Counter(dict(pairs)),
    "!tuple": tuple,
    "!size": torch.Size,
    "!set": set,
    "!frozenset": frozenset,
    "!bytes": base64.b64decode,
    "!bytearray": lambda text: bytearray(base64.b64decode(text)),
    "!complex": lambda parts: complex(*parts),
    "!dtype": lambda name: getattr(torch, name),
    "!array": array_of,
    "!scalar": scalar_of,
}
