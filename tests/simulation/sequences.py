"""Sequences in place of samples: a sample's tokens, and those of which labels are asked."""

from __future__ import annotations

import torch
from torch import Tensor

from edldist.student.inputs.sequences import Sequences

__all__ = ["INPUTS", "LONGEST", "padded", "sample_of"]

LONGEST = 5
INPUTS = Sequences("tokens", mask="mask", asked="asked")


def padded(ids: list[int]) -> dict[str, Tensor]:
    """``tokens`` int64 [B, S] of samples, and bool ``mask`` and ``asked``, padded on the right or the left.

    Of each fourth sample nothing is asked, and its teacher never sees it.
    """
    lengths = [1 + sample % LONGEST for sample in ids]
    width = max(lengths, default=0)
    tokens = torch.zeros(len(ids), width, dtype=torch.int64)
    mask, asked = torch.zeros_like(tokens, dtype=torch.bool), torch.zeros_like(tokens, dtype=torch.bool)
    for row, (sample, length) in enumerate(zip(ids, lengths, strict=True)):
        first = width - length if sample % 2 else 0
        tokens[row, first : first + length] = sample * LONGEST + torch.arange(length)
        mask[row, first : first + length] = True
        if sample % 4 != 3:
            asked[row, first + (length - 1) // 2 : first + length] = True
    return {"tokens": tokens, "mask": mask, "asked": asked}


def sample_of(tokens: Tensor) -> list[int]:
    """The samples that tokens are of."""
    return sorted(set((tokens.flatten() // LONGEST).tolist()))
