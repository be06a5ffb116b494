"""Distil the digits teacher into the small student: a plain training loop and three lines of edldist.

Runs in a job (``edldist run examples/digits/job.yaml``) and, on one rank or several, under bare
``torchrun`` with EDLDIST_COORDINATOR set.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

# torchrun puts this script's folder on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import edldist
from examples.digits import recipe
from examples.digits.census import Census
from examples.digits.data import DrawSampler, splits, train_loader, unlabelled
from examples.digits.models import student

REPORT_EVERY_STEPS = 10


def main() -> None:
    args = recipe.options(__doc__).parse_args()
    rank = int(os.environ.get("RANK", "0"))
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if ranks > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    torch.manual_seed(args.seed)

    train, test = splits(args.seed)
    sampler = DrawSampler(len(train), args.batch_size, seed=args.seed)
    loader = edldist.DistillLoader(
        train_loader(unlabelled(train), sampler), inputs="image", epochs=args.epochs, device=device
    )
    model = student().to(device)
    steps = args.epochs * sampler.batches_per_epoch
    optimizer, scheduler = recipe.optimization(model, args, steps)
    census = Census(args.epochs * len(train), device)

    folder = recipe.output_folder()
    state = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    state |= {"loader": loader, "census": census}
    checkpointer = edldist.Checkpointer(folder / "checkpoints")
    step = checkpointer.restore(state) or 0
    if step and rank == 0:
        print(f"going on from step {step} of {steps}, of the checkpoints in {folder}")
    parallel = DistributedDataParallel(model) if ranks > 1 else model
    reference = recipe.reference(args, folder) if rank == 0 else None

    for epoch in range(loader.epoch, args.epochs):
        for batch, labels in loader:
            loss = edldist.losses.kd(
                parallel(batch["image"]), labels["logits"], temperature=args.temperature, alpha=1.0
            )
            optimizer.zero_grad()
            (loss * loader.loss_weight).backward()  # the weight is 1 but where ranks share a batch unevenly
            optimizer.step()
            scheduler.step()
            step += 1
            if loader.loss_weight:  # 0 for a rank that got nothing but padding
                census.count(batch["draw"])
            if rank == 0 and step % REPORT_EVERY_STEPS == 0:
                edldist.report(step=step, steps=steps, epoch=epoch, epochs=args.epochs, loss=loss.item())
            if checkpointer.due(step):
                checkpointer.save(step, state)
            if edldist.should_stop():
                checkpointer.save(step, state, wait=True)
                return
        lost, repeated = census.lost_and_repeated((epoch + 1) * len(train))
        if rank == 0:
            figures = compare(recipe.accuracy(model, test), reference, epoch)
            figures |= {"lost": lost, "repeated": repeated}
            edldist.report(step=step, steps=steps, epoch=epoch, epochs=args.epochs, **figures)

    checkpointer.save(step, state, wait=True)
    lost, repeated = census.lost_and_repeated(args.epochs * len(train))
    if rank == 0:
        figures = compare(recipe.accuracy(model, test), reference, args.epochs - 1)
        print(", ".join(f"{name} {value:.2%}" for name, value in figures.items()))
        print(f"{args.epochs * len(train):,} samples: {lost} lost, {repeated} repeated")
        edldist.report(step=step, steps=steps, epoch=args.epochs, epochs=args.epochs, **figures)
        edldist.report(lost=lost, repeated=repeated)
    checkpointer.close()
    loader.close()
    if ranks > 1:
        dist.destroy_process_group()


def compare(accuracy: float, reference: dict[str, Any] | None, epoch: int) -> dict[str, float]:
    """The test accuracy, and those of the plain student after that epoch and of the teacher, where known."""
    if reference is None:
        return {"accuracy": accuracy}
    plain, teacher = reference["plain_accuracy"][epoch], reference["teacher_accuracy"]
    return {"accuracy": accuracy, "plain_accuracy": plain, "teacher_accuracy": teacher}


if __name__ == "__main__":
    main()
