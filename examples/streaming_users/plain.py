"""The baseline: one network for everybody from the labels of day 0, fine-tuned to each new user afterwards.

It has the same labels for as many steps as the other student has before the stream, and learns from the
clicks that are known too, to which the other one only adapts. How long and how fast it is fine-tuned was
chosen on other seeds than those that are quoted (README).
"""

from __future__ import annotations

import os
import sys
from itertools import islice
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

import edldist
from examples.streaming_users import recipe
from examples.streaming_users.data import SUPPORT, Arrivals
from examples.streaming_users.finetuning import finetuned
from examples.streaming_users.models import student
from examples.streaming_users.nights import Nights

FINETUNE_STEPS, FINETUNE_RATE = 1, 0.03
"""The best of 1, 3 and 10 steps at 0.03, 0.1, 0.3 and 1, for all weights or the last layer's, on seed 100."""


def main(given: list[str] | None = None) -> None:
    args = recipe.arguments(__doc__, given)
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
    model = student(args.seed, steps=0)
    optimizer = recipe.optimizer(model)

    stream = Arrivals(recipe.calendar(args), recipe.BATCH, args.seed, rank, ranks)
    with (
        edldist.DistillLoader(stream, inputs=("items", "clicks", "query"), versions=1) as loader,
        edldist.Checkpointer(recipe.output_folder() / "checkpoints") as checkpointer,
        Nights(recipe.output_folder() / "weights", args.build) as nights,
    ):
        state = {"model": model, "optimizer": optimizer, "loader": loader}
        restored = checkpointer.restore(state)
        step = restored or 0
        nights.begin(resumed=restored is not None)
        if restored is None:
            checkpointer.save(step, state, wait=True)
        nights.come(0)
        parallel = DistributedDataParallel(model) if ranks > 1 else model
        for batch, labels in islice(loader, args.offline_steps - step):
            recipe.set_rates(optimizer, step, args.offline_steps)
            known = batch["items"][:, :SUPPORT]
            logits = parallel(batch["items"], batch["clicks"], torch.cat([batch["query"], known], dim=1))
            target = torch.cat([labels["logits"].sigmoid(), batch["clicks"][:, :SUPPORT]], dim=1)
            loss = F.binary_cross_entropy_with_logits(logits, target)
            optimizer.zero_grad()
            (loss * loader.loss_weight).backward()
            optimizer.step()
            step += 1
            if rank == 0 and step % 10 == 0:
                edldist.report(step=step, steps=args.offline_steps, loss=loss.item())
            if checkpointer.due(step):
                checkpointer.save(step, state)
            if edldist.should_stop():
                checkpointer.save(step, state, wait=True)
                return
        checkpointer.save(step, state, wait=True)
        if rank == 0:
            new = recipe.judged(recipe.DAYS)
            figures = {
                "pooled_auc": recipe.judge(model),
                "finetuned_auc": recipe.auc(
                    finetuned(model, new, FINETUNE_STEPS, FINETUNE_RATE), new["query_clicks"]
                ),
            }
            print(", ".join(f"{name} {value:.2f}" for name, value in figures.items()))
            edldist.report(step=step, steps=args.offline_steps, **figures)
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
