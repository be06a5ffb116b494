"""Distil the teachers of four categories into one network that is ready for items that nobody knows yet."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

import edldist
from examples.cold_items import data, recipe
from examples.cold_items.models import GraphNetwork


def main() -> None:
    args = recipe.options(__doc__).parse_args()
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(args.seed)

    market = data.market()
    rows = recipe.samples(market, args.steps, args.seed)
    sampler = edldist.ElasticSampler(len(rows), recipe.BATCH, shuffle=False)
    loader = edldist.DistillLoader(
        rows.loader(sampler),
        inputs=("item", "context"),
        teacher=recipe.TEACHERS,
        route="category",
        epochs=1,
    )
    model = GraphNetwork(market.mature, args.graph)
    optimizer, schedule = recipe.optimization(model, args.steps)
    out = Path(os.environ.get("EDLDIST_OUTPUT", "out/cold_items"))
    checkpointer = edldist.Checkpointer(out / "checkpoints")
    state = {"model": model, "optimizer": optimizer, "schedule": schedule, "loader": loader}
    step = checkpointer.restore(state) or 0
    parallel = DistributedDataParallel(model) if ranks > 1 else model

    for batch, labels in loader:
        logits = parallel(batch["item"], batch["context"], batch["attributes"])
        loss = F.binary_cross_entropy_with_logits(logits, labels["logits"].sigmoid())
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
        warm, cold = recipe.warm_auc(model, market, args.seed), recipe.cold_auc(model, market, args.seed)
        print(
            f"AUC: {warm:.4f} of mature items, {cold['after']:.4f} of cold ones ({cold['before']:.4f} before)"
        )
        found = {"warm_auc": warm, "cold_auc": cold["after"], "cold_auc_before": cold["before"]}
        edldist.report(step=step, steps=args.steps, **found)
    checkpointer.close()
    loader.close()
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
