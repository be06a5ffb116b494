"""Train the small classifier of digits with Accelerate, on the few labels that there are."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # not the script's folder: the project's

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from examples.few_labels.data import splits
from examples.few_labels.models import student


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), gradient_accumulation_steps=2)
    set_seed(0)
    train, labelled, test = splits()
    model = student()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loader = DataLoader(labelled, batch_size=32, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    for _ in range(args.epochs):
        for batch in loader:
            with accelerator.accumulate(model):
                loss = cross_entropy(model(batch["pixels"]), batch["label"])
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()

    with torch.no_grad():
        right = accelerator.unwrap_model(model).cpu()(test.pixels).argmax(1) == test.labels
    accuracy = right.float().mean().item()
    accelerator.print(f"accuracy {accuracy:.2%}")


if __name__ == "__main__":
    main()
