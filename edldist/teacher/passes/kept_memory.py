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
        references = _references(packed, outputs)
        kept = [(name, memory) for name, memory, counted in references if counted != _NOBODYS]
        labels = dict(packed)
        copied: dict[int, bool] = {}
        for name, memory in kept:
            if memory not in copied:
                copied[memory] = self._may_change(labels[name])
            if copied[memory]:
                labels[name] = labels[name].clone()
        return labels

    def _may_change(self, tensor: Tensor) -> bool:
        """Whether kept memory has to be taken for memory that is written to again."""
        if not tensor.is_cpu or tensor.is_inference():
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


def _references(
    packed: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
) -> list[tuple[str, int, tuple[int, int]]]:
    """How many references to each of the packed tensors, and to its memory, are not of these two mappings.

    Returns:
        Name, memory (the same for all tensors that share it), and both counts with a constant of the
        interpreter's own on top: compare these with ``_NOBODYS``.
    """
    held: dict[int, int] = {}
    memories: dict[int, int] = {}
    users: dict[int, int] = {}
    for each in (outputs, packed):
        for name in each:
            key = id(each[name])
            if key in held:
                held[key] += 1
                continue
            held[key] = 1
            memory = memories[key] = each[name].untyped_storage()._cdata
            users[memory] = users.get(memory, 0) + 1
    counted = []
    for name in packed:  # no name may refer to a tensor in here
        key = id(packed[name])
        memory = memories[key]
        uses = torch._C._storage_Use_Count(memory) - users[memory]
        counted.append((name, memory, (sys.getrefcount(packed[name]) - held[key], uses)))
    return counted


def _fresh() -> dict[str, Tensor]:
    return {"x": torch.empty(1, device="cpu")}


_NOBODYS = _references(alone := _fresh(), dict(alone))[0][2]
"""What is counted of a tensor to which nobody else refers."""
