"""The digits teacher at a pace that a test sets: slow, so that things can happen, until told to hurry."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from torch import Tensor, nn

from examples.digits.models import teacher as digits_teacher

PASS_S = 1.5


class Paced(nn.Module):
    """Waits before each pass, until a file appears."""

    def __init__(self, hurry: str) -> None:
        super().__init__()
        self.model = digits_teacher()
        self._hurry = Path(hurry)

    def forward(self, image: Tensor) -> Tensor:
        if not self._hurry.exists():
            time.sleep(PASS_S)
        logits: Tensor = self.model(image)
        return logits


def teacher(hurry: str) -> Paced:
    return Paced(hurry)


if __name__ == "__main__":  # as the preparation of a job: weights that nobody trained
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(Paced("").state_dict(), sys.argv[1])
