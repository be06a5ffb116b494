"""Distil sixty teachers, one a task, into a network that is told a task's parameters, unseen tasks' too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import edldist
from examples.control import recipe
from examples.control.models import GROUPS, NETWORKS, group_of
from examples.control.tasks import systems


def main() -> None:
    args = recipe.options(__doc__).parse_args()
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(args.seed)

    data = recipe.samples(args.steps, args.seed)
    sampler = edldist.ElasticSampler(len(data), recipe.BATCH, shuffle=False)
    loader = edldist.DistillLoader(
        data.loader(sampler),
        inputs=("state", "task"),
        teacher=[f"tasks-{group}" for group in range(GROUPS)],
        route=group_of,
        epochs=1,
    )
    model, tasks = NETWORKS[args.network](), systems(recipe.seen_tasks())
    optimizer, schedule = recipe.optimization(model, args.steps)
    out = Path(os.environ.get("EDLDIST_OUTPUT", "out/control"))
    checkpointer = edldist.Checkpointer(out / "checkpoints")
    state = {"model": model, "optimizer": optimizer, "schedule": schedule, "loader": loader}
    step = checkpointer.restore(state) or 0
    parallel = DistributedDataParallel(model) if ranks > 1 else model

    for batch, labels in loader:
        loss = recipe.loss_of(parallel, batch, labels, tasks)
        optimizer.zero_grad()
        (loss * loader.loss_weight).backward()
        optimizer.step()
        schedule.step()
        step += 1
        if rank == 0 and step % 50 == 0:
            edldist.report(step=step, steps=args.steps, loss=loss.item())
        if checkpointer.due(step):
            checkpointer.save(step, state)
        if edldist.should_stop():
            checkpointer.save(step, state, wait=True)
            return

    checkpointer.save(step, state, wait=True)
    if rank == 0:
        seen, unseen = (recipe.judge(model, each) for each in (recipe.seen_tasks(), recipe.unseen_tasks()))
        print(f"cost / least cost: {unseen['mean']:.4f} in unseen tasks, {seen['mean']:.4f} in seen ones")
        edldist.report(
            step=step,
            steps=args.steps,
            unseen=unseen["mean"],
            unseen_worst=unseen["worst"],
            seen=seen["mean"],
        )
    checkpointer.close()
    loader.close()
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
