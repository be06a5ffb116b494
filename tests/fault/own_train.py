"""The student of the on-policy fault tests: what it asks about is drawn by its own weights.

A batch holds numbers that come from the outputs of the model of the moment, and from random numbers. Its
teacher (``tests.fault.teachers``) labels a sample with its number, so each step can check that the labels are
those of what it has just made, and that no labels come twice.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

import edldist


@torch.no_grad()
def drawn(model: nn.Module, size: int) -> dict[str, Tensor]:
    """float64 ``x`` [size, 4], and int64 ``id`` [size]: what the model makes of it."""
    x = torch.randn(size, 4, dtype=torch.float64)
    return {"x": x, "id": (model(x).sum(dim=1) * 1e9).long()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--size", type=int, default=20)
    parser.add_argument("--staleness", type=int, default=0)
    parser.add_argument("--step-s", type=float, default=0.0)
    parser.add_argument("--hurry", type=Path, help="no pause between steps once this file is there")
    options = parser.parse_args()
    output = Path(os.environ["EDLDIST_OUTPUT"])
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if several:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if several else 0

    torch.manual_seed(0)
    bare = nn.Linear(4, 2, dtype=torch.float64)
    model = nn.parallel.DistributedDataParallel(bare) if several else bare
    torch.manual_seed(rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    teachers = edldist.LabelRequests(("id", "x"), staleness=options.staleness)
    state = {"model": model, "optimizer": optimizer, "teachers": teachers}
    checkpointer = edldist.Checkpointer()
    step = checkpointer.restore(state) or 0

    book = (output / f"steps-rank{rank}.jsonl").open("a")
    pending = [teachers.request(drawn(bare, options.size)) for _ in range(options.staleness)]
    while step < options.steps:
        pending.append(teachers.request(drawn(bare, options.size)))
        oldest = pending.pop(0)
        batch, target = oldest.batch, oldest.labels()["logits"]
        if not torch.equal(target[:, 0], batch["id"].double()):
            sys.exit(f"step {step}: labels of {target[:, 0].tolist()} for samples {batch['id'].tolist()}")
        loss = edldist.losses.mse(model(batch["x"]), torch.sin(target / 1e9))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        record = {"t": time.time(), "step": step, "rank": rank, "pid": os.getpid()}
        book.write(json.dumps(record | {"world": dist.get_world_size() if several else 1}) + "\n")
        book.flush()
        edldist.report(step=step, loss=loss.detach())
        if checkpointer.due(step):
            checkpointer.save(step, state)
        if edldist.should_stop():
            checkpointer.save(step, state, wait=True)
            return
        if options.step_s and not (options.hurry is not None and options.hurry.exists()):
            time.sleep(options.step_s)
    checkpointer.save(step, state, wait=True)
    if rank == 0:
        weights = torch.cat([p.detach().reshape(-1) for p in bare.parameters()])
        result = {
            "step": step,
            "weights": weights.tolist(),
            "sha256": hashlib.sha256(weights.numpy().tobytes()).hexdigest(),
            "stats": teachers.stats(),
        }
        (output / "done.json").write_text(json.dumps(result))
    checkpointer.close()
    teachers.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    main()
