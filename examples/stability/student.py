"""Distil the click model from a stream in which something happens halfway.

The loop is a plain one; what is edldist's in it are the loader, the checkpointer, and with ``--guard`` the
guard.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

import edldist
from examples.stability import recipe
from examples.stability.data import stream
from examples.stability.models import student


def main() -> None:
    args = recipe.options(__doc__).parse_args()
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(args.seed)

    clicks = stream(args.seed, args.steps, recipe.BATCH, args.shock)
    sampler = edldist.ElasticSampler(len(clicks), recipe.BATCH, shuffle=False)
    loader = edldist.DistillLoader(clicks.loader(sampler), inputs=recipe.INPUTS, epochs=1)
    model = student()
    optimizer = recipe.optimizer_of(model, args)
    guard = edldist.SpikeGuard(loader)
    checkpointer = edldist.Checkpointer(
        Path(os.environ.get("EDLDIST_OUTPUT", "out/stability")) / "checkpoints"
    )
    state = {"model": model, "optimizer": optimizer, "loader": loader, "guard": guard}
    step = checkpointer.restore(state)
    if step is None:
        checkpointer.save(step := 0, state)
    parallel = DistributedDataParallel(model) if ranks > 1 else model

    for batch, labels in guard if args.guard else loader:
        logits = parallel(**{name: batch[name] for name in recipe.INPUTS})
        loss = edldist.losses.kd(logits, labels["logits"], alpha=1.0)
        optimizer.zero_grad()
        (loss * loader.loss_weight).backward()
        if args.clip:
            clip_grad_norm_(model.parameters(), args.clip)
        if args.guard and guard.spiked(step, loss):
            step = guard.roll_back(checkpointer, state)
            continue
        optimizer.step()
        step += 1
        if rank == 0 and step % 10 == 0:
            edldist.report(step=step, steps=args.steps, loss=loss.item())
        if checkpointer.due(step):
            checkpointer.save(step, state)
        if edldist.should_stop():
            checkpointer.save(step, state, wait=True)
            return

    if rank == 0:
        found = recipe.auc(model, args.shock)
        print(f"AUC: {found:.4f}; {guard.rollbacks} rollbacks, {loader.stats()['left_out']} samples left out")
        edldist.report(step=step, steps=args.steps, auc=found, rollbacks=guard.rollbacks)
    checkpointer.close()
    loader.close()
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
