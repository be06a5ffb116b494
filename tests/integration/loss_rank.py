"""Train one step on a rank with its share of positions, and print the averaged gradient."""

from __future__ import annotations

import json
import os
import sys

import torch
import torch.distributed as dist

from edldist import losses


def main() -> None:
    job = json.loads(sys.argv[1])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=job["meeting"], rank=rank, world_size=world)
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(7, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    inputs, teacher = (torch.randn(6, n, generator=generator, dtype=torch.float64) for n in (4, 7))
    mask = torch.tensor(job["plans"]["mask"])
    mine = slice(3 * rank, 3 * rank + 3) if world > 1 else slice(None)
    count = losses.mean_count(mask[mine])
    loss = losses.reverse_kl(inputs[mine] @ weight.T, teacher[mine], mask=mask[mine], count=count)
    (grad,) = torch.autograd.grad(loss, weight)
    dist.all_reduce(grad)
    print(json.dumps({"grad": (grad / world).flatten().tolist(), "count": count.item()}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
