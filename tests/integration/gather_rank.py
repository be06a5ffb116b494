"""Contrastive steps of a shared model on a rank with its share of the queries; prints the gradients."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from edldist import losses
from edldist.errors import InputError

QUERIES = 8


class Both(nn.Module):
    """An encoder of queries and one of passages."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.passages = nn.Linear(5, 4), nn.Linear(6, 4)

    def forward(self, queries: Tensor, passages: Tensor) -> tuple[Tensor, Tensor]:
        return self.queries(queries), self.passages(passages).tanh()


def step(shares: list[int], rank: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Of the rank that has ``shares[rank]`` of the queries."""
    torch.manual_seed(3)
    model, queries, passages = Both(), torch.randn(QUERIES, 5), torch.randn(QUERIES, 2, 6)
    numbers = torch.tensor([1, 2, 3, 4, 5, 6, 1, 8])  # the first and the seventh query have the same passage
    mine = slice(sum(shares[:rank]), sum(shares[: rank + 1]))
    parallel = (
        DistributedDataParallel(model) if len(shares) > 1 else model
    )  # lives until the gradient is there
    q, p = parallel(queries[mine], passages[mine])
    gathered, begin = losses.gather_rows(p.flatten(0, 1).to(dtype))
    theirs = losses.gather_rows(numbers[mine].repeat_interleave(2)).rows
    own = begin + 2 * torch.arange(shares[rank])
    mask = theirs != numbers[mine].unsqueeze(1)
    mask[torch.arange(shares[rank]), own] = True
    loss = losses.contrastive(q @ gathered.to(q.dtype).T, own, mask=mask)
    (loss * len(shares) * shares[rank] / QUERIES).backward()
    grads = [each.grad.flatten() for each in model.parameters() if each.grad is not None]
    flags = losses.gather_rows(numbers[mine] > 4).rows
    return {
        "grad": torch.cat(grads).tolist(),
        "numbers": theirs.tolist(),
        "flags": flags.tolist(),
        "begin": begin,
    }


def unfit(rank: int) -> list[str]:
    """What a rank is told of rows that are not alike."""
    said = []
    for rows in (
        torch.zeros(2, 3 + rank),
        torch.zeros(2, 3, dtype=(torch.float32, torch.float64)[rank]),
        torch.zeros(2, 3, requires_grad=rank == 1),
        torch.zeros((2, 3) if rank == 0 else (2, 3, 1)),
    ):
        try:
            losses.gather_rows(rows)
        except InputError as exc:
            said.append(str(exc))
    return said


def main() -> None:
    job = json.loads(sys.argv[1])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=job["meeting"], rank=rank, world_size=world)
    found = {
        "steps": [step(shares, rank) for shares in job["plans"]["shares"]],
        "half": step([4, 4], rank, torch.bfloat16),
        "unfit": unfit(rank),
        "empty": list(losses.gather_rows(torch.zeros(0, 3)).rows.shape),
    }
    print(json.dumps(found))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
