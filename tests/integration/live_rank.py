"""A rank that averages gradients and hands its state to ranks behind it; prints what it has then."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from edldist.errors import CheckpointError
from edldist.live.averaging import average_gradients
from edldist.live.handover import Progress, hand_over


def averaged(rank: int) -> dict[str, Any]:
    """Of parameters that have a gradient on both ranks, on the second, and on none."""
    both, one = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3, dtype=torch.float64))
    none = nn.Parameter(torch.zeros(1))
    both.grad = torch.tensor([1.0, 3.0]) * (rank + 1)
    if rank:
        one.grad = torch.full((3,), 4.0, dtype=torch.float64)
    heard = average_gradients([both, one, none], asked=rank == 1, waiting=True)
    grads = [None if p.grad is None else p.grad.tolist() for p in (both, one, none)]
    return {"grads": grads, "asked": heard.asked, "waiting": heard.waiting}


def handed(rank: int, steps: list[int], wider: bool = False, one_lr: bool = False) -> dict[str, Any]:
    """Of ranks that have come so far; each weight says whose it was."""
    torch.manual_seed(rank)
    model = nn.Linear(2, 2 + (wider and rank == 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1 * (1 if one_lr else rank + 1))
    for _ in range(max(0, steps[rank])):
        model(torch.ones(2)).sum().backward()
        optimizer.step()
    state = {"model": model, "optimizer": optimizer}
    here = Progress(steps[rank], {"loader": {"samples": 10 * steps[rank], "of": rank}})
    try:
        there = hand_over(state, here)
    except CheckpointError as exc:
        return {"error": str(exc)}
    moments = [each["exp_avg"].sum().item() for each in optimizer.state.values()]
    return {
        "step": there.step,
        "positions": dict(there.positions),
        "weight": model.weight.tolist(),
        "lr": optimizer.param_groups[0]["lr"],
        "moments": moments,
    }


def main() -> None:
    job = json.loads(sys.argv[1])
    rank = int(os.environ["RANK"])
    dist.init_process_group(
        "gloo", init_method=job["meeting"], rank=rank, world_size=int(os.environ["WORLD_SIZE"])
    )
    told = {
        "averaged": averaged(rank),
        "behind": handed(rank, [1, 2]),
        "equal": handed(rank, [2, 2], one_lr=True),
        "unequal": handed(rank, [2, 2]),
        "new": handed(rank, [-1, -1]),
        "joins": handed(rank, [3, -1]),
        "unlike": handed(rank, [1, 0], wider=True),
    }
    print(json.dumps(told), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
