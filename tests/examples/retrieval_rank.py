"""One step of the student of examples/retrieval on a rank with its share of a batch; prints the gradient."""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from examples.retrieval import models, recipe


def gradient(rank: int, ranks: int) -> list[float]:
    """Of denoised lists, every 97th number."""
    model = models.student(1)
    chance = torch.Generator().manual_seed(2)
    size, length = 16, 4
    queries = torch.randint(1, 500, (size, 5), generator=chance)
    texts = torch.randint(1, 500, (40, 9), generator=chance)
    batch = {
        "query": torch.arange(size),
        "passages": torch.stack([torch.randperm(40, generator=chance)[:length] for _ in range(size)]),
        "annotated": torch.ones(size, dtype=torch.bool),
    }
    scores = 4 * torch.randn(size, length, generator=chance)
    part = slice(rank * size // ranks, (rank + 1) * size // ranks)
    mine = {name: rows[part] for name, rows in batch.items()}
    parallel = DistributedDataParallel(model) if ranks > 1 else model
    embedded = parallel(queries[part], texts[mine["passages"]])
    recipe.contrast(*embedded, mine, recipe.denoised(mine, scores[part])).backward()
    grads = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    found: list[float] = torch.cat(grads)[::97].tolist()
    return found


def main() -> None:
    job = json.loads(sys.argv[1])
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=job["meeting"], rank=rank, world_size=ranks)
    print(json.dumps({"grad": gradient(rank, ranks)}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
