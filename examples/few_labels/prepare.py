"""Train the teacher, on all labels, where its weights are missing."""

from __future__ import annotations

import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy

from examples.few_labels.data import splits
from examples.few_labels.models import teacher

WEIGHTS = Path(__file__).resolve().parent / "build" / "teacher.safetensors"
STEPS = 600


def main() -> None:
    if WEIGHTS.exists():
        return
    torch.manual_seed(0)
    train, _, test = splits()
    model = teacher()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
    for _ in range(STEPS):
        chosen = torch.randint(len(train), (128,))
        loss = cross_entropy(model(train.pixels[chosen]), train.labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = (model(test.pixels).argmax(1) == test.labels).float().mean().item()
    WEIGHTS.parent.mkdir(exist_ok=True)
    save_file(model.state_dict(), WEIGHTS)
    print(f"teacher: test accuracy {accuracy:.2%}")


if __name__ == "__main__":
    main()
