"""The digits teacher at a pace that a test sets: slow, so that things can happen, until told to hurry."""

from __future__ import annotations

import time
from pathlib import Path

from torch import nn

from examples.digits.models import teacher as digits_teacher

PASS_S = 2.0


def teacher(hurry: str) -> nn.Module:
    """Waits before each pass, until a file appears."""

    def wait(*_: object) -> None:
        if not Path(hurry).exists():
            time.sleep(PASS_S)

    model: nn.Module = digits_teacher()
    model.register_forward_pre_hook(wait)
    return model
