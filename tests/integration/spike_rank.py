"""One rank of loops with a guard, and of steps with Clippy on sharded weights; prints what it saw as JSON.

Each plan: ``coordinator``, ``checkpoints``, and where wanted ``spoilt`` (the sample whose loss is not finite)
or ``differ`` (the ranks watch different figures). The steps are taken on several ranks.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

import edldist
from edldist.errors import InputError
from edldist.optim import Clippy

SAMPLES, BATCH, EPOCHS = 26, 4, 2


class Table(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        x = torch.randn(3, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
        return {"id": torch.tensor(number), "x": x}


def main() -> None:
    job = json.loads(sys.argv[1])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=job["meeting"], rank=rank, world_size=world)
    seen = {name: guarded(plan, rank) for name, plan in job["plans"].items()}
    print(json.dumps(seen | ({"sharded": sharded_steps()} if world > 1 else {})), flush=True)
    dist.destroy_process_group()


def guarded(plan: dict[str, Any], rank: int) -> dict[str, Any]:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    optimizer = Clippy(model.parameters(), lr=0.1)
    sampler = edldist.ElasticSampler(SAMPLES, BATCH, seed=3)
    loader = edldist.DistillLoader(
        DataLoader(Table(), batch_sampler=sampler),
        inputs="id",
        coordinator=plan["coordinator"],
        epochs=EPOCHS,
        deterministic=True,
        task_size=2,
    )
    guard = edldist.SpikeGuard(loader, epochs=EPOCHS, window=5, least=5, tolerance=1e6)
    state = {"model": model, "optimizer": optimizer, "loader": loader, "guard": guard}
    checkpointer = edldist.Checkpointer(plan["checkpoints"])
    checkpointer.save(step := 0, state)
    parallel = DistributedDataParallel(model)
    taken: list[list[int]] = []
    for batch, labels in guard:
        ids = batch["id"].tolist()
        loss = (parallel(batch["x"]) - labels["logits"] / SAMPLES).square().mean()
        if plan.get("spoilt") in ids and loader.epoch == 1:
            loss = loss * float("nan")  # on one rank; the gradients of all of them have it then
        optimizer.zero_grad()
        (loss * loader.loss_weight).backward()
        others = {"extra": 1.0} if plan.get("differ") and rank == 1 else {}
        try:
            spiked = guard.spiked(step, loss, **others)
        except InputError as exc:
            loader.close()
            checkpointer.close()
            return {"error": str(exc)}
        if spiked:
            step = guard.roll_back(checkpointer, state)
            del taken[step:]
            continue
        optimizer.step()
        taken.append(ids)
        step += 1
        if step % 3 == 0:
            checkpointer.save(step, state)
    seen = {
        "taken": taken,
        "left_out": loader.stats()["left_out"],
        "samples": loader.stats()["samples"],
        "rollbacks": guard.rollbacks,
        "weights": torch.cat([each.detach().flatten() for each in model.parameters()]).tolist(),
    }
    checkpointer.close()
    loader.close()
    return seen


def sharded_steps() -> dict[str, Any]:
    """Whole weights, and the same sharded over the ranks, after steps with the same gradients."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    generator = torch.Generator().manual_seed(1)
    begin = torch.randn(5, 3, generator=generator)
    whole, sharded = (
        nn.Parameter(begin.clone()),
        nn.Parameter(distribute_tensor(begin.clone(), mesh, [Shard(0)])),
    )
    optimizers = [Clippy([each], lr=1.0) for each in (whole, sharded)]
    scales = []
    for _ in range(3):
        gradient = torch.randn(5, 3, generator=generator)
        whole.grad, sharded.grad = gradient.clone(), distribute_tensor(gradient, mesh, [Shard(0)])
        for optimizer in optimizers:
            optimizer.step()
        scales.append([optimizer.least_scale() for optimizer in optimizers])
    assert isinstance(sharded.data, DTensor)
    return {"whole": whole.tolist(), "sharded": sharded.full_tensor().tolist(), "scales": scales}


if __name__ == "__main__":
    main()
