"""Train the teacher on all of the text, where its weights are missing or were made otherwise."""

from __future__ import annotations

import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

from examples.common.kept import fingerprint, kept_weights
from examples.lm.models import teacher
from examples.lm.text import read
from examples.lm.training import train_on_text

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE / "build" / "teacher.safetensors"
STEPS, SEED = 300, 1000


def main() -> None:
    sources = [HERE / f"{name}.py" for name in ("models", "prepare", "recipe", "text", "training")]
    bits = kept_weights(WEIGHTS, fingerprint({}, sources), train_teacher)["bits_per_byte"]
    print(f"teacher: {bits:.3f} bits per byte of held-out text")


def train_teacher() -> tuple[dict[str, Tensor], dict[str, float]]:
    """Its weights, and what it needs for text that it has not read."""
    print(f"teacher: no weights yet, training for {STEPS} steps", flush=True)
    torch.manual_seed(SEED)
    model = teacher()
    found = train_on_text(model, read("all"), STEPS, SEED)
    return model.state_dict(), {"bits_per_byte": found[-1]}


if __name__ == "__main__":
    main()
