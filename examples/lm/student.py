"""Distil the language model: the student learns what the teacher says of each next byte, not the bytes.

Whatever the job's ``codec:``: the losses take labels as they come.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

import edldist
from examples.lm import recipe
from examples.lm.models import student
from examples.lm.prepare import WEIGHTS
from examples.lm.text import Draws, held_out, read


def main() -> None:
    args = recipe.options(__doc__).parse_args()
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
    torch.manual_seed(args.seed)

    data = Draws(read(args.text), args.steps * recipe.BATCH, args.seed)
    sampler = edldist.ElasticSampler(len(data), recipe.BATCH, shuffle=False)
    loader = edldist.DistillLoader(
        DataLoader(data, batch_sampler=sampler),
        inputs=lambda batch: {"tokens": batch["tokens"][:, :-1]},
        epochs=1,
    )
    model, test = student(), held_out()
    optimizer, schedule = recipe.optimization(model, args.steps)
    checkpointer = edldist.Checkpointer(recipe.output_folder() / "checkpoints")
    state = {"model": model, "optimizer": optimizer, "schedule": schedule, "loader": loader}
    step = checkpointer.restore(state) or 0
    parallel = DistributedDataParallel(model) if ranks > 1 else model
    weights = load_file(WEIGHTS)
    head = edldist.losses.Head(weights["head.weight"], weights["head.bias"])

    for batch, labels in loader:
        logits = parallel(batch["tokens"][:, :-1])["logits"]
        if "hidden" in labels:
            loss = edldist.losses.forward_kl(logits, labels["hidden"], teacher_head=head)
        else:
            loss = edldist.losses.forward_kl(logits, labels["logits"])
        optimizer.zero_grad()
        (loss * loader.loss_weight).backward()
        optimizer.step()
        schedule.step()
        step += 1
        if rank == 0 and step % 10 == 0:
            edldist.report(step=step, steps=args.steps, loss=loss.item())
        if checkpointer.due(step):
            checkpointer.save(step, state)
        if edldist.should_stop():
            checkpointer.save(step, state, wait=True)
            return

    checkpointer.save(step, state, wait=True)
    if rank == 0:
        bits = recipe.bits_per_byte(model, test)
        print(f"bits per byte: {bits:.3f}")
        edldist.report(step=step, steps=args.steps, bits_per_byte=bits)
    checkpointer.close()
    loader.close()
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
