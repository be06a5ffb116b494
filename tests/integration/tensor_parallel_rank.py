"""One rank of a tensor parallel group: trains as its plans say, and prints what it saw as a line of JSON.

Each plan: ``coordinator``, ``samples``, ``batch_size``, ``epochs``, and where wanted ``checkpoints`` and
``stop_after`` (steps). On one rank there is no group, and nothing is parallel.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.utils.data import DataLoader

import edldist
from tests.integration.accelerate_rank import FEATURES, Table


def main() -> None:
    job = json.loads(sys.argv[1])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=job["meeting"], rank=rank, world_size=world)
    print(json.dumps({name: train(plan, world) for name, plan in job["plans"].items()}), flush=True)
    if world > 1:
        dist.destroy_process_group()


def train(plan: dict[str, Any], world: int) -> dict[str, Any]:
    torch.manual_seed(11)
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    place = {"rank": 0, "world_size": 1}
    if world > 1:
        mesh = init_device_mesh("cpu", (1, world), mesh_dim_names=("data", "tensor"))
        model = parallelize_module(model, mesh["tensor"], {"0": ColwiseParallel(), "2": RowwiseParallel()})
        place = {"rank": mesh.get_local_rank("data"), "world_size": mesh["data"].size()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, foreach=False)
    sampler = edldist.ElasticSampler(plan["samples"], plan["batch_size"], seed=5, **place)
    loader = edldist.DistillLoader(
        DataLoader(Table(plan["samples"]), batch_sampler=sampler),
        inputs="x",
        coordinator=plan["coordinator"],
        deterministic=True,
        task_size=4,
    )
    seen: dict[str, Any] = {"ids": [], "losses": []}
    state = {"model": model, "optimizer": optimizer, "loader": loader}
    checkpointer = step = None
    if "checkpoints" in plan:
        checkpointer = edldist.Checkpointer(plan["checkpoints"])
        step = checkpointer.restore(state)
    seen["from"] = step = step or 0
    while loader.epoch < plan["epochs"] and step != plan.get("stop_after"):
        for batch, labels in loader:
            loss = edldist.losses.kd(model(batch["x"].double()), labels["logits"], alpha=1.0)
            optimizer.zero_grad()
            (loss * loader.loss_weight).backward()
            optimizer.step()
            step += 1
            seen["ids"].append(batch["id"].tolist())
            seen["losses"].append(loss.item())
            if step == plan.get("stop_after"):
                checkpointer.save(step, state, wait=True)
                break
    seen["weights"] = [whole(value).tolist() for value in model.state_dict().values()]
    seen["teachers"] = loader.state_dict()["teachers"]
    if checkpointer is not None:
        checkpointer.close()
    loader.close()
    return seen


def whole(value: torch.Tensor) -> torch.Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


if __name__ == "__main__":
    main()
