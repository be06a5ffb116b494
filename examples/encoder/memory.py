"""What the teacher has said so far: it reads each text once, the student learns from it many times."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["Memory"]


class Memory:
    """Labels of texts, by their numbers. It belongs into a checkpoint, as the teacher is not asked again."""

    def __init__(self) -> None:
        self.numbers = torch.empty(0, dtype=torch.int64)
        self.labels: dict[str, Tensor] = {}

    def add(self, numbers: Tensor, labels: dict[str, Tensor]) -> None:
        """Labels with a row for each of the numbers, int64 [B]."""
        self.numbers = torch.cat([self.numbers, numbers])
        known = self.labels or {name: rows[:0] for name, rows in labels.items()}
        self.labels = {name: torch.cat([known[name], rows]) for name, rows in labels.items()}

    def draw(self, count: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Numbers and labels of texts that torch's random numbers choose."""
        at = torch.randint(len(self.numbers), (count,))
        return self.numbers[at], {name: rows[at] for name, rows in self.labels.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"numbers": self.numbers, "labels": self.labels}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.numbers, self.labels = state["numbers"], dict(state["labels"])
