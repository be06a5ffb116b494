"""Train the early ranker on what the late one says of the candidates that it has just drawn.

edldist run examples/early_ranker/job.yaml --output out/early_ranker
"""

from __future__ import annotations

import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import Tensor

import edldist
from edldist.losses import candidate_gradient, draw_candidates
from examples.early_ranker import recipe
from examples.early_ranker.data import World
from examples.early_ranker.models import early_ranker

REPORT_EVERY_STEPS = 20


def main() -> None:
    args = recipe.options(__doc__).parse_args()
    torch.manual_seed(args.seed)
    world, model = World(), early_ranker()
    optimizer = torch.optim.Adam(model.parameters(), lr=recipe.RATES[args.credit])
    teachers = edldist.LabelRequests(("user", "candidates"), optimizer=optimizer)
    state = {"model": model, "optimizer": optimizer, "teachers": teachers}
    checkpointer = edldist.Checkpointer()
    first = checkpointer.restore(state) or 0

    def ask(users: Tensor, candidates: Tensor) -> Tensor:
        return teachers.request({"user": users, "candidates": candidates}).labels()["logits"]

    for step in range(first + 1, args.steps + 1):
        users = world.visitors(recipe.BATCH)
        logits = model(users)
        candidates = draw_candidates(logits, args.candidates)
        brought = recipe.rewards(ask(users, candidates), args.credit)
        loss = candidate_gradient(logits, candidates, brought, credit=args.credit)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % REPORT_EVERY_STEPS == 0:
            edldist.report(step=step, steps=args.steps, loss=loss.item())
        if checkpointer.due(step):
            checkpointer.save(step, state)
        if edldist.should_stop():
            checkpointer.save(step, state, wait=True)
            return

    if args.steps:
        checkpointer.save(args.steps, state, wait=True)
    figures = {"value": recipe.value(model, ask, args.candidates)}
    print(f"{figures['value']:.2f} clicks in 100 visits after {args.steps} steps, credit={args.credit}")
    for count in args.noise:
        found = recipe.noise(model, ask, count)
        figures |= {f"{name}_{count}": variance for name, variance in found.items()}
    staleness = teachers.stats()["staleness"]
    edldist.report(step=args.steps, steps=args.steps, staleness=staleness, **figures)
    checkpointer.close()
    teachers.close()


if __name__ == "__main__":
    main()
