"""Labels in memory that the model keeps: a later pass may write to it while they are still on their way.

Labels are sent from the memory that the model returned. Fresh memory belongs to them alone. A model may also
return memory that it goes on holding (a buffer of its own, the outputs of a CUDA graph): references of
somebody else's give that away. Such labels are copied, unless the model has shown that it only reads that
memory: it returned it before, and torch has counted no write to it since. On a device they are always copied:
a graph that is replayed writes without being counted, and a copy costs next to nothing there.

Not noticed: memory of which torch knows no other reference (numpy's, the graph trees of a compiled model),
and writes on the CPU that torch does not count (through numpy).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["KeptMemory"]

logger = logging.getLogger(__name__)

_MOST_SEEN = 256


class KeptMemory:
    """Gives labels memory of their own where they need it. Owned by the compute thread."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}  # memory that was returned before: address -> writes counted then
        self._told = False

    def own(self, packed: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Labels that no later pass changes.

        Args:
            packed: what is to be sent.
            outputs: of the model; nobody else of ours may refer to any of these tensors now.
        """
        kept = {name for name, counted in _references(packed, outputs).items() if counted != _NOBODYS}
        copied = {
            memory: self._may_change(tensor)
            for memory, tensor in {_memory(packed[name]): packed[name] for name in kept}.items()
        }
        return {
            name: tensor.clone() if name in kept and copied[_memory(tensor)] else tensor
            for name, tensor in packed.items()
        }

    def _may_change(self, tensor: Tensor) -> bool:
        """Whether kept memory has to be taken for memory that is written to again."""
        if tensor.device.type != "cpu" or tensor.is_inference():
            return True
        address, writes = tensor.untyped_storage().data_ptr(), tensor._version
        before = self._seen.get(address)
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen[address] = writes
        if before not in (None, writes) and not self._told:
            self._told = True
            logger.info("the model writes again to memory that it has returned: its labels are copied")
        return before != writes


def _references(packed: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> dict[str, tuple[int, int]]:
    """How many references to each of the packed tensors, and to its memory, are not of these two mappings.

    Counted with a constant of the interpreter's own on top: compare with ``_NOBODYS``.
    """
    held = [id(tensor) for each in (outputs, packed) for tensor in each.values()]
    memories = {id(tensor): _memory(tensor) for each in (outputs, packed) for tensor in each.values()}
    users = list(memories.values())
    counted = {}
    for name in packed:
        key = id(packed[name])
        memory = memories[key]
        counted[name] = (
            sys.getrefcount(packed[name]) - held.count(key),
            torch._C._storage_Use_Count(memory) - users.count(memory),
        )
    return counted


def _memory(tensor: Tensor) -> int:
    """Names the memory of a tensor: the same for all tensors that share it."""
    return tensor.untyped_storage()._cdata  # type: ignore[no-any-return]


def _fresh() -> dict[str, Tensor]:
    return {"x": torch.empty(1, device="cpu")}


_NOBODYS = _references(alone := _fresh(), dict(alone))["x"]
"""What is counted of a tensor to which nobody else refers."""
