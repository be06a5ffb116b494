"""Train the same recommender without a teacher: on the ratings that mature users have given, and on no
others."""

from __future__ import annotations

import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch.nn.functional as F
from torch.utils.data import DataLoader

from examples.cold_users import recipe
from examples.cold_users.data import Draws, World
from examples.cold_users.models import Student, student
from examples.cold_users.structure import best, chosen, described


def main(given: list[str] | None = None) -> Student:
    args = recipe.arguments(__doc__, given)
    world, model = World.made(), student(args.seed)
    if args.structure != "search":
        model.keep(chosen(args.structure), args.seed)
    optimizer = recipe.optimizer(model)

    data = Draws(world, args.steps * recipe.BATCH, args.seed, rated=True)
    for step, batch in enumerate(DataLoader(data, recipe.BATCH)):
        recipe.set_rates(optimizer, step, args)
        found = model(batch["support"], batch["ratings"], batch["query"])
        loss = F.mse_loss(found, batch["truth"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if args.structure == "search" and step + 1 == args.search_steps:
            model.keep(best(model.weights.tolist(), args.keep), args.seed)
            optimizer.state.clear()

    print(f"modulations of the layers: {described(model.places)}")
    print(f"squared error of new users' ratings: {recipe.error(model, world):.4f}")
    return model


if __name__ == "__main__":
    main()
