"""Students of one process: training with true labels, or online distillation with the teacher inside."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import edldist
from examples.image import recipe
from examples.image.data import batches, splits
from examples.image.models import student, teacher
from examples.image.prepare import weights_of


def main() -> None:
    parser = recipe.options(__doc__)
    parser.add_argument("--labels", choices=("true", "online"), default="online")
    parser.add_argument("--result", type=Path, help="where to write accuracy and images/s, as JSON")
    args = parser.parse_args()
    inside = None
    if args.labels == "online":
        inside = teacher(args.size)
        inside.load_state_dict(load_file(weights_of(args.size)))
    found = trained(args.size, args.epochs, args.seed, inside)
    print(f"accuracy: {found['accuracy']:.2f} at {found['images_per_s']:.0f} images/s")
    if args.result:
        args.result.write_text(json.dumps(found), encoding="utf-8")


def trained(size: int, epochs: int, seed: int, inside: nn.Module | None) -> dict[str, float]:
    """Train a student; initial weights, order, steps, optimizer and schedule are those of student.py.

    Args:
        inside: the teacher, which labels each batch before the student's step; None: true labels.

    Returns:
        ``accuracy`` in percent, and ``images_per_s`` from the first step's end to the last one's.
    """
    device = recipe.device_of()
    torch.manual_seed(seed)
    train, test = splits(size, seed)
    loader = batches(train, recipe.BATCH, seed, rank=0, world_size=1)
    model = student(size).to(device)
    optimizer, schedule = recipe.optimization(model, epochs * len(loader))
    if inside is not None:
        inside = inside.to(device).eval()
    begun, images = 0.0, 0
    for epoch in range(epochs):
        loader.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
        for batch in loader:
            image, label = batch["image"].to(device), batch["label"].to(device)
            loss = loss_of(model(image), label, None if inside is None else labels_of(inside, image))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            loss.item()  # as a loop that reports
            if begun:
                images += len(image)
            else:
                begun = time.perf_counter()
    seconds = time.perf_counter() - begun
    return {"accuracy": recipe.accuracy(model, test), "images_per_s": images / seconds}


def loss_of(logits: Tensor, true: Tensor, soft: Tensor | None) -> Tensor:
    if soft is None:
        return recipe.true_loss(logits, true)
    return edldist.losses.kd(logits, soft, temperature=recipe.TEMPERATURE, alpha=1.0)


@torch.inference_mode()
def labels_of(inside: nn.Module, image: Tensor) -> Tensor:
    logits: Tensor = inside(image)
    return logits.clone()


if __name__ == "__main__":
    main()
