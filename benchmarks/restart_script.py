"""A training loop that writes down when it steps, and how it came to its first step.

With labels if a coordinator is named. Both forms do the same: import torch, join the process group, wrap a
model in DDP, restore, step.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

STARTED = time.time()

import torch  # noqa: E402 - the time before it counts
import torch.distributed as dist  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

STEP_S = 0.05
SAVE_EVERY = 20


class Marks:
    """A line for each stage of this process: when, and the CPU seconds spent until then."""

    def __init__(self, folder: Path) -> None:
        self._book = (folder / f"marks-{os.environ['NODE']}.jsonl").open("a")

    def __call__(self, mark: str, t: float | None = None) -> None:
        record = {"t": t or time.time(), "mark": mark, "pid": os.getpid(), "cpu_s": time.process_time()}
        self._book.write(json.dumps(record) + "\n")
        self._book.flush()


def main() -> None:
    folder = Path(sys.argv[1])
    mark = Marks(folder)
    mark("started", STARTED)
    mark("imported")
    dist.init_process_group("gloo")
    mark("joined")
    rank, world = dist.get_rank(), dist.get_world_size()
    model = nn.Linear(8, 8)
    parallel = nn.parallel.DistributedDataParallel(model)
    mark("wrapped")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    data = TensorDataset(torch.randn(200_000, 8))
    labelled = "EDLDIST_COORDINATOR" in os.environ
    book = (folder / f"steps-{os.environ['NODE']}.jsonl").open("a")
    step = 0
    if labelled:
        import edldist

        sampler = edldist.ElasticSampler(len(data), 32)
        loader = edldist.DistillLoader(DataLoader(data, batch_sampler=sampler), inputs=0)
        state = {"model": model, "optimizer": optimizer, "loader": loader}
        checkpointer = edldist.Checkpointer(folder / "checkpoints")
        step = checkpointer.restore(state) or 0
        batches = (labels["logits"] for _, labels in loader)
    else:
        saved = folder / "plain.pt"
        if saved.exists():
            kept = torch.load(saved, weights_only=True)
            model.load_state_dict(kept["model"])
            optimizer.load_state_dict(kept["optimizer"])
            step = kept["step"]
        batches = (batch for (batch,) in DataLoader(data, batch_size=32 // world))
    mark("restored")
    began = step
    for x in batches:
        loss = parallel(x.float()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        book.write(json.dumps({"t": time.time(), "step": step, "world": world}) + "\n")
        book.flush()
        if step == began + 1:
            mark("first step")
        if labelled and step % SAVE_EVERY == 0:
            checkpointer.save(step, state)
        elif not labelled and step % SAVE_EVERY == 0 and rank == 0:
            kept = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            torch.save(kept, folder / "plain.tmp")
            (folder / "plain.tmp").rename(folder / "plain.pt")
        if labelled and edldist.should_stop():
            checkpointer.save(step, state, wait=True)
            return
        time.sleep(STEP_S)


if __name__ == "__main__":
    main()
