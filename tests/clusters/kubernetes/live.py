"""A student of a test: a loop over an ``edldist.LiveGroup`` that writes down each step it applied."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

import edldist

SAMPLES, BATCH, EPOCHS = 2_000, 20, 2
STEP_S = 0.2


def main() -> None:
    torch.manual_seed(0)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for generation in edldist.LiveGroup({"model": model, "optimizer": optimizer}):
        with generation:
            train(generation, model, optimizer)


def train(generation, model, optimizer) -> None:
    output = Path(os.environ["EDLDIST_OUTPUT"])
    sampler = edldist.ElasticSampler(SAMPLES, BATCH)
    numbers = torch.arange(SAMPLES, dtype=torch.float32).unsqueeze(1)
    data = DataLoader(numbers, batch_sampler=sampler)
    loader = edldist.DistillLoader(data, inputs=lambda batch: {"x": batch})
    checkpointer = edldist.Checkpointer()
    step = generation.resume(checkpointer, loader=loader)
    here = {"pod": os.uname().nodename, "pid": os.getpid(), "world": generation.world_size}
    with (output / f"steps-{os.uname().nodename}.jsonl").open("a") as book:
        for epoch in range(loader.epoch, EPOCHS):
            for batch, labels in loader:
                loss = nn.functional.mse_loss(model(batch / SAMPLES), labels["logits"] / SAMPLES)
                optimizer.zero_grad()
                (loss * loader.loss_weight).backward()
                step = generation.step(optimizer)
                took = {"t": time.time(), "step": step, "epoch": epoch, "ids": batch.flatten().int().tolist()}
                book.write(json.dumps(took | here) + "\n")
                book.flush()
                edldist.report(step=step, epoch=epoch)
                if checkpointer.due(step):
                    checkpointer.save(step, generation.state)
                if edldist.should_stop():
                    checkpointer.save(step, generation.state, wait=True)
                    return
                if not (output / "hurry").exists():
                    time.sleep(STEP_S)
    checkpointer.save(step, generation.state, wait=True)


if __name__ == "__main__":
    main()
