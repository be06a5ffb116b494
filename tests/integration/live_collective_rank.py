"""A rank of a live process group: what it does together with another, and what when that stands still."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from edldist.live.change import is_change
from edldist.live.process_group import make_default_group
from edldist.live.standing import Standing
from edldist.ranks.agreement import Ranks

LOST = "1 of the 2 ranks of generation 3 are gone"
TIMEOUT = timedelta(minutes=10)
"""Of gloo: nothing here may wait for it."""


def together(rank: int) -> dict[str, Any]:
    """Collectives of a script, of torch's wrappers, and of edldist, while nothing happens."""
    summed = torch.full((2,), float(rank + 1))
    dist.all_reduce(summed)
    objects: list[Any] = [None, None]
    dist.all_gather_object(objects, {"rank": rank})
    whole = torch.zeros(2)
    dist.all_gather_into_tensor(whole, torch.tensor([float(rank)]))
    told = [{"from": rank}]
    dist.broadcast_object_list(told, src=1)
    dist.barrier()
    apart = dist.new_group([0, 1])
    maximum = torch.tensor([rank])
    dist.all_reduce(maximum, dist.ReduceOp.MAX, group=apart)
    ranks = Ranks()
    gathered = ranks.gather(rank)
    ranks.leave()
    return {
        "sum": summed.tolist(),
        "objects": objects,
        "whole": whole.tolist(),
        "told": told,
        "maximum": maximum.item(),
        "gathered": gathered,
        "backend": dist.get_backend(),
    }


def wrapped(rank: int) -> tuple[nn.Module, list[float]]:
    """A model under ``DistributedDataParallel``, and the mean of its first gradient."""
    torch.manual_seed(rank)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    shown = nn.parallel.DistributedDataParallel(model)
    shown(torch.randn(3, 4)).exp().sum().backward()
    return shown, [p.grad.sum().item() for p in model.parameters() if p.grad is not None]


def forward_and_backward(shown: nn.Module, batch: torch.Tensor) -> None:
    shown(batch).sum().backward()


def left(standing: Standing, lost: list[str], operation: Callable[[], object]) -> dict[str, Any]:
    """What becomes of an operation whose other rank never comes, once that is known."""
    lost.clear()

    def tell() -> None:
        lost.append(LOST)
        standing.lost()

    threading.Timer(0.2, tell).start()
    try:
        operation()
    except Exception as exc:
        return {
            "change": is_change(exc, standing.ended),
            "told": LOST in str(exc),
            "kind": type(exc).__name__,
        }
    return {"change": False}


def main() -> None:
    meeting = json.loads(sys.argv[1])["meeting"]
    rank = int(os.environ["RANK"])
    lost: list[str] = []
    store = dist.FileStore(meeting.removeprefix("file://"), 2)
    told: dict[str, Any] = {}
    for turn, what in enumerate(("all_reduce", "backward", "forward", "gather")):
        lost.clear()
        standing = Standing(lambda: lost[0] if lost else "")
        own = dist.PrefixStore(f"turn {turn}", store)
        make_default_group(lambda own=own: own, rank, 2, TIMEOUT, standing)
        if turn == 0:
            told["together"] = together(rank)
        shown, gradients = wrapped(rank)
        told["gradients"] = gradients
        ranks = Ranks()
        if rank == 1:
            own.wait(["over"], timedelta(minutes=1))  # as one that is frozen
        else:
            batch = torch.ones(3, 4)
            if what == "backward":
                shown.require_forward_param_sync = False
            operations: dict[str, Callable[[], object]] = {
                "all_reduce": partial(dist.all_reduce, torch.ones(1)),
                "backward": partial(forward_and_backward, shown, batch),
                "forward": partial(shown, batch),
                "gather": partial(ranks.gather, rank),
            }
            told[what] = left(standing, lost, operations[what])
            del operations
            standing.end("it is over")
        del shown, ranks
        dist.destroy_process_group()
        if rank == 0:
            own.set("over", "yes")
    told["threads"] = [each.name for each in threading.enumerate() if each.name.startswith("edldist")]
    print(json.dumps(told), flush=True)
    sys.stdout.flush()
    os._exit(0)  # what was left under way waits for its time-out


if __name__ == "__main__":
    main()
