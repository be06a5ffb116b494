"""Distil from served teachers: what ``plain.py --labels online`` does, with the teacher elsewhere."""

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
from examples.image import recipe
from examples.image.data import batches, splits
from examples.image.models import student


def main() -> None:
    args = recipe.options(__doc__).parse_args()
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    device = recipe.device_of()
    if ranks > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    torch.manual_seed(args.seed)

    train, test = splits(args.size, args.seed)
    loader = edldist.DistillLoader(
        batches(train, recipe.BATCH, args.seed), inputs="image", epochs=args.epochs, device=device
    )
    model = student(args.size).to(device)
    steps = args.epochs * loader.batches_per_epoch
    optimizer, schedule = recipe.optimization(model, steps)
    checkpointer = edldist.Checkpointer(Path(os.environ.get("EDLDIST_OUTPUT", "out/image")) / "checkpoints")
    state = {"model": model, "optimizer": optimizer, "schedule": schedule, "loader": loader}
    step = checkpointer.restore(state) or 0
    parallel = DistributedDataParallel(model) if ranks > 1 else model

    for epoch in range(loader.epoch, args.epochs):
        for batch, labels in loader:
            logits = parallel(batch["image"])
            loss = edldist.losses.kd(logits, labels["logits"], temperature=recipe.TEMPERATURE, alpha=1.0)
            optimizer.zero_grad()
            (loss * loader.loss_weight).backward()
            optimizer.step()
            schedule.step()
            step += 1
            if rank == 0:
                edldist.report(step=step, steps=steps, epoch=epoch, epochs=args.epochs, loss=loss.item())
            if checkpointer.due(step):
                checkpointer.save(step, state)
            if edldist.should_stop():
                checkpointer.save(step, state, wait=True)
                return

    checkpointer.save(step, state, wait=True)
    if rank == 0:
        found = recipe.accuracy(model, test)
        print(f"accuracy: {found:.2f}")
        edldist.report(step=step, steps=steps, epoch=args.epochs, epochs=args.epochs, accuracy=found)
    checkpointer.close()
    loader.close()
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
