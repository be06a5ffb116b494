"""Train the teacher on all of the text, where its weights are missing."""

from __future__ import annotations

import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from safetensors.torch import save_file

from examples.lm.models import teacher
from examples.lm.text import read
from examples.lm.training import train_on_text

WEIGHTS = Path(__file__).resolve().parent / "build" / "teacher.safetensors"
STEPS, SEED = 300, 1000


def main() -> None:
    if WEIGHTS.exists():
        return
    print(f"teacher: no weights yet, training for {STEPS} steps", flush=True)
    torch.manual_seed(SEED)
    model = teacher()
    found = train_on_text(model, read("all"), STEPS, SEED)
    WEIGHTS.parent.mkdir(exist_ok=True)
    partial = WEIGHTS.with_suffix(".partial")
    save_file(model.state_dict(), partial)
    partial.rename(WEIGHTS)
    print(f"teacher: {found[-1]:.3f} bits per byte of held-out text")


if __name__ == "__main__":
    main()
