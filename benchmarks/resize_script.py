"""A training loop over an ``edldist.LiveGroup`` that writes down when each rank steps."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import edldist

STEP_S = 0.02


def main() -> None:
    folder = Path(sys.argv[1])
    torch.manual_seed(0)
    model = nn.Linear(8, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    data = TensorDataset(torch.randn(2_000_000, 8))
    with (folder / f"steps-{os.getpid()}.jsonl").open("a") as book:
        for generation in edldist.LiveGroup({"model": model, "optimizer": optimizer}):
            with generation:
                sampler = edldist.ElasticSampler(len(data), 32, shuffle=False)
                loader = edldist.DistillLoader(DataLoader(data, batch_sampler=sampler), inputs=0)
                step = generation.resume(loader=loader)
                here = {"rank": generation.rank, "world": generation.world_size, "pid": os.getpid()}
                for batch, labels in loader:
                    loss = (model(batch[0]).mean(1) - labels["logits"].mean(1)).square().mean()
                    optimizer.zero_grad()
                    (loss * loader.loss_weight).backward()
                    step = generation.step(optimizer)
                    threads = len(os.listdir("/proc/self/task"))
                    descriptors = len(os.listdir("/proc/self/fd"))
                    record = here | {"t": time.time(), "step": step, "threads": threads, "fds": descriptors}
                    book.write(json.dumps(record) + "\n")
                    book.flush()
                    time.sleep(STEP_S)


if __name__ == "__main__":
    main()
