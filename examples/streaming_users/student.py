"""Distil a recommender from a stream of new users that has no end, and a teacher that is replaced each night.

On day 0 both parts of the student learn: the fixed one, which sees items, and the adaptive one, where every
new user begins. From the first day of the stream on only the adaptive part does. Whenever a day is over the
teacher of its night is published, and workers go over to it while the student runs.
"""

from __future__ import annotations

import os
import sys
from itertools import islice
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch.distributed as dist
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

import edldist
from edldist.errors import InputError
from examples.streaming_users import recipe
from examples.streaming_users.data import Arrivals
from examples.streaming_users.ledger import Ledger
from examples.streaming_users.models import student
from examples.streaming_users.nights import Nights

VERSIONS = 2
"""Of the teacher, that label at a time: of two workers one goes over to the next version before the other."""


def main(given: list[str] | None = None) -> None:
    args = recipe.arguments(__doc__, given)
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if ranks > 1:
        dist.init_process_group("gloo")
    model, ledger = student(args.seed, args.adapt_steps), Ledger(recipe.BATCH, rank, ranks, VERSIONS)
    optimizer, calendar = recipe.optimizer(model), recipe.calendar(args)

    stream = Arrivals(calendar, recipe.BATCH, args.seed, rank, ranks, args.users)
    with (
        edldist.DistillLoader(stream, inputs=("items", "clicks", "query"), versions=VERSIONS) as loader,
        edldist.Checkpointer(recipe.output_folder() / "checkpoints") as checkpointer,
        Nights(recipe.output_folder() / "weights", args.build) as nights,
    ):
        state = {"model": model, "optimizer": optimizer, "ledger": ledger, "loader": loader}
        restored = checkpointer.restore(state)
        step = restored or 0
        nights.begin(resumed=restored is not None)
        if restored is None:
            checkpointer.save(step, state, wait=True)  # who goes on from here knows the place for its own
        nights.come(calendar.night_before(step * recipe.BATCH))
        parallel = DistributedDataParallel(model) if ranks > 1 else model
        for batch, labels in islice(loader, args.steps - step):
            ledger.count(batch["arrival"], labels["version"], labels["night"])
            recipe.set_rates(optimizer, step, args.offline_steps)
            logits = parallel(batch["items"], batch["clicks"], batch["query"])
            loss = F.binary_cross_entropy_with_logits(logits, labels["logits"].sigmoid())
            optimizer.zero_grad()
            (loss * loader.loss_weight).backward()
            optimizer.step()
            step += 1
            nights.come(calendar.night_before(step * recipe.BATCH))
            if rank == 0 and step == args.offline_steps:
                edldist.report(step=step, steps=args.steps, offline_auc=recipe.judge(model))
            if rank == 0 and step % 10 == 0:
                edldist.report(step=step, steps=args.steps, loss=loss.item())
            if checkpointer.due(step):
                checkpointer.save(step, state)
            if edldist.should_stop():
                checkpointer.save(step, state, wait=True)
                return
        checkpointer.save(step, state, wait=True)
        counted = ledger.totals()
        if step < args.steps:
            raise InputError(
                f"the stream ended after {step * recipe.BATCH} arrivals, at step {step} of {args.steps}. All "
                "of them count, and edldist run --extend goes on behind them: with more of them (--users) or "
                "to an end with fewer --steps"
            )
        if rank == 0:
            online = recipe.judge(model)
            print(f"AUC of new users: {online:.2f}; arrivals {counted}")
            edldist.report(step=step, steps=args.steps, online_auc=online, **counted)
    if ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
