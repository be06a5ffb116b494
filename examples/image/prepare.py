"""Train the teacher of a picture size, where its weights are missing."""

from __future__ import annotations

import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from safetensors.torch import save_file
from torch import nn

from examples.image import recipe
from examples.image.data import Pictures, batches, splits
from examples.image.models import teacher

BUILD = Path(__file__).resolve().parent / "build"
EPOCHS, SEED = 24, 1000  # a seed apart from the students', so that no student repeats the teacher's pictures


def main() -> None:
    parser = recipe.options(__doc__)
    parser.set_defaults(epochs=EPOCHS, seed=SEED)
    args = parser.parse_args()
    weights = weights_of(args.size)
    if weights.exists():
        return
    print(f"teacher: no weights yet, training for {args.epochs} epochs", flush=True)
    train, test = splits(args.size, args.seed)
    model = trained(train, args.epochs, args.seed)
    weights.parent.mkdir(exist_ok=True)
    partial = weights.with_suffix(".partial")
    save_file(model.state_dict(), partial)
    partial.rename(weights)
    print(f"teacher: {recipe.accuracy(model, test):.1f}% of the test pictures")


def weights_of(size: int) -> Path:
    """Where the teacher of that size is kept."""
    return BUILD / f"teacher-{size}.safetensors"


def trained(train: Pictures, epochs: int, seed: int) -> nn.Module:
    """A teacher that has seen the true labels of all pictures."""
    torch.manual_seed(seed)
    device = recipe.device_of()
    model = teacher(train.size).to(device)
    loader = batches(train, recipe.BATCH, seed, rank=0, world_size=1)
    optimizer, schedule = recipe.optimization(model, epochs * len(loader))
    for epoch in range(epochs):
        loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        for batch in loader:
            loss = recipe.true_loss(model(batch["image"].to(device)), batch["label"].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model


if __name__ == "__main__":
    main()
