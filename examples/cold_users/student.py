"""Distil the recommender of cold users, and search for its modulations meanwhile.

The teacher knows mature users by name. The student sees ten of their ratings, and learns what the teacher
says of items that these users have never rated. For ``--search-steps`` all modulations are there, each by its
weight; then the best ``--keep`` stay, and the network begins anew with these. What was found so far is in the
checkpoint: a run that is interrupted while it searches goes on searching.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import edldist
from examples.cold_users import recipe
from examples.cold_users.data import Draws, World
from examples.cold_users.models import student
from examples.cold_users.structure import best, chosen, described


def main(given: list[str] | None = None) -> None:
    args = recipe.arguments(__doc__, given)
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
    world, model = World.made(), student(args.seed)
    if args.structure != "search":
        model.keep(chosen(args.structure), args.seed)
    optimizer = recipe.optimizer(model)

    data = Draws(world, args.steps * recipe.BATCH, args.seed)
    sampler = edldist.ElasticSampler(len(data), recipe.BATCH, shuffle=False)
    with (
        edldist.DistillLoader(
            DataLoader(data, batch_sampler=sampler), inputs=("user", "asked"), epochs=1
        ) as loader,
        edldist.Checkpointer(recipe.output_folder() / "checkpoints") as checkpointer,
    ):
        state = {"model": model, "optimizer": optimizer, "loader": loader}
        step = checkpointer.restore(state) or 0
        parallel = DistributedDataParallel(model, broadcast_buffers=False) if ranks > 1 else model
        for batch, labels in loader:
            recipe.set_rates(optimizer, step, args)
            found = parallel(batch["support"], batch["ratings"], batch["query"])
            loss = F.mse_loss(found, labels["ratings"])
            optimizer.zero_grad()
            (loss * loader.loss_weight).backward()
            optimizer.step()
            step += 1
            if args.structure == "search" and step == args.search_steps:
                model.keep(best(model.weights.tolist(), args.keep), args.seed)
                optimizer.state.clear()
            if rank == 0 and step % 20 == 0:
                edldist.report(step=step, steps=args.steps, loss=loss.item())
            if checkpointer.due(step):
                checkpointer.save(step, state)
            if edldist.should_stop():
                checkpointer.save(step, state, wait=True)
                return
        checkpointer.save(step, state, wait=True)
        if rank == 0:
            error = recipe.error(model, world)
            print(f"modulations of the layers: {described(model.places)}")
            print(f"squared error of new users' ratings: {error:.4f}")
            edldist.report(step=step, steps=args.steps, error=error)
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
