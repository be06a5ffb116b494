"""Train the small classifier of digits with Accelerate, on what a teacher says of all images."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # not the script's folder: the project's

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

import edldist
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
    loader = DataLoader(train, batch_size=32, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    loader = edldist.DistillLoader(loader, inputs="pixels", device=accelerator.device)
    state = {"model": model, "optimizer": optimizer, "loader": loader}
    checkpointer = edldist.Checkpointer()
    step = checkpointer.restore(state) or 0

    for epoch in range(loader.epoch, args.epochs):
        for batch, labels in loader:
            with accelerator.accumulate(model):
                loss = edldist.losses.kd(model(batch["pixels"]), labels["logits"], alpha=1.0)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            if not accelerator.sync_gradients:
                continue
            step += 1
            edldist.report(step=step, epoch=epoch, loss=loss.item())
            if (stop := edldist.should_stop()) or checkpointer.due(step):
                checkpointer.save(step, state, wait=stop)
            if stop:
                return
    checkpointer.save(step, state, wait=True)
    checkpointer.close()
    loader.close()

    with torch.no_grad():
        right = accelerator.unwrap_model(model).cpu()(test.pixels).argmax(1) == test.labels
    accuracy = right.float().mean().item()
    edldist.report(step=step, accuracy=accuracy)
    accelerator.print(f"accuracy {accuracy:.2%}")


if __name__ == "__main__":
    main()
