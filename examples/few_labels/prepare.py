"""Train the teacher, on all labels, where its weights are missing."""

from __future__ import annotations

import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from examples.common.kept import fingerprint, kept_weights, sources_of
from examples.few_labels.data import splits
from examples.few_labels.models import teacher

WEIGHTS = Path(__file__).resolve().parent / "build" / "teacher.safetensors"
STEPS = 600


def main() -> None:
    key = fingerprint({}, sources_of(Path(__file__).resolve().parent))
    print(f"teacher: test accuracy {kept_weights(WEIGHTS, key, train_teacher)['accuracy']:.2%}")


def train_teacher() -> tuple[dict[str, Tensor], dict[str, float]]:
    """Its weights and its test accuracy."""
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
    return model.state_dict(), {"accuracy": accuracy}


if __name__ == "__main__":
    main()
