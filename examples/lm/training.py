"""Training on text alone: the teacher's, and the student's without a teacher."""

from __future__ import annotations

import torch
from torch import nn

from examples.lm.recipe import BATCH, bits_per_byte, optimization, text_loss
from examples.lm.text import Draws, held_out

__all__ = ["train_on_text"]

LOOK_EVERY_STEPS = 25


def train_on_text(model: nn.Module, text: torch.Tensor, steps: int, seed: int) -> list[float]:
    """Bits per byte of held-out text every 25 steps, the last one at the end."""
    test, data = held_out(), Draws(text, steps * BATCH, seed)
    optimizer, schedule = optimization(model, steps)
    found: list[float] = []
    for step, batch in enumerate(torch.utils.data.DataLoader(data, BATCH), 1):
        tokens = batch["tokens"]
        loss = text_loss(model(tokens[:, :-1])["logits"], tokens)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % LOOK_EVERY_STEPS == 0 or step == steps:
            found.append(bits_per_byte(model, test))
    return found
