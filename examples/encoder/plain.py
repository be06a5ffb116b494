"""Train the student on the 45 labelled texts alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F

from examples.encoder import recipe
from examples.encoder.models import Student, features
from examples.encoder.text import Split, split


def trained_plainly(given: Split, seed: int, steps: int) -> tuple[float, float]:
    """Accuracy at the end, and at its best of every 25 steps."""
    torch.manual_seed(seed)
    model = Student()
    optimizer, schedule = recipe.optimization(model, steps)
    texts, subjects = [features(text) for text in given.labelled], torch.from_numpy(given.subjects)
    found = []
    for step in range(1, steps + 1):
        chosen = torch.randint(len(texts), (recipe.BATCH,)).tolist()
        loss = F.cross_entropy(model([texts[at] for at in chosen])["logits"], subjects[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 25 == 0 or step == steps:
            found.append(recipe.accuracy(recipe.answers(model, given.test)["logits"], given))
    return found[-1], max(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400)
    args = parser.parse_args()
    at_end, at_best = trained_plainly(split(args.seed), args.seed, args.steps)
    print(f"accuracy: {at_end:.1f} at the end, {at_best:.1f} at its best")


if __name__ == "__main__":
    main()
