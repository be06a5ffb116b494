"""Which draws a run was trained on, counted from the batches themselves."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class Census:
    """Counts how often the training loop used each draw, over all ranks and restarts.

    Part of the checkpoint's state, so that it forgets what a restored model has forgotten. ``gather`` and
    what calls it (``lost_and_repeated``, ``state_dict``) are collective: all ranks call them together.

    Args:
        draws: of the whole run: epochs times samples.
        device: where collectives take place.
    """

    def __init__(self, draws: int, device: torch.device | None = None) -> None:
        self._counts = torch.zeros(draws, dtype=torch.int32)
        self._own = torch.zeros(draws, dtype=torch.int32)
        self._device = device

    def count(self, draws: Tensor) -> None:
        """The loop took a step on these: int64 [B], any device."""
        self._own.index_add_(0, draws.cpu(), torch.ones(len(draws), dtype=torch.int32))

    def gather(self) -> None:
        """Add up what all ranks have counted since the last time."""
        if dist.is_initialized():
            everyones = self._own.to(self._device)
            dist.all_reduce(everyones)
            self._own = everyones.cpu()
        self._counts += self._own
        self._own = torch.zeros_like(self._own)

    def lost_and_repeated(self, draws: int) -> tuple[int, int]:
        """How many of the first ``draws`` were not used at all, and how often any draw came once more."""
        self.gather()
        lost = int((self._counts[:draws] == 0).sum())
        return lost, int((self._counts - 1).clamp(min=0).sum())

    def state_dict(self) -> dict[str, Any]:
        self.gather()
        return {"counts": self._counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._counts = state["counts"].clone()
        self._own = torch.zeros_like(self._counts)
