"""What the distilled student and the plain one share: options, optimizer, evaluation, reference."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from examples.digits.data import Digits

BUDGET = ("epochs", "batch_size", "lr", "weight_decay", "labels_per_class", "seed")


def options(description: str | None) -> argparse.ArgumentParser:
    """The command line of student.py and of prepare.py: one list of arguments fits both.

    The defaults are the job's settings, so that the scripts started by hand do what the job does.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--epochs", type=int, default=53, help="passes of the distilled student over all images"
    )
    parser.add_argument("--batch-size", type=int, default=64, help="samples of a step, over all ranks")
    parser.add_argument("--lr", type=float, default=1e-2, help="peak of the cosine schedule")
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--labels-per-class", type=int, default=5, help="true labels (plain student only)")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights, order, images, true labels")
    parser.add_argument("--temperature", type=float, default=4.0, help="of the soft labels (distilled only)")
    return parser


def budget(args: argparse.Namespace) -> dict[str, Any]:
    """All that the plain student depends on. Two students compare only where these are equal."""
    return {name: getattr(args, name) for name in BUDGET}


def optimization(model: nn.Module, args: argparse.Namespace, steps: int) -> tuple[AdamW, CosineAnnealingLR]:
    """The optimizer, and its learning rate falling to 0 over all steps."""
    optimizer = AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    return optimizer, CosineAnnealingLR(optimizer, steps)


@torch.no_grad()
def accuracy(model: nn.Module, dataset: Digits) -> float:
    """The share of right answers on a whole dataset, in one pass, rounded to four digits."""
    batch = dataset.__getitems__(range(len(dataset)))
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    right = model(batch["image"].to(device)).argmax(1).cpu() == batch["label"]
    model.train(was_training)
    return round(right.double().mean().item(), 4)


def reference(args: argparse.Namespace, folder: Path) -> dict[str, Any] | None:
    """What prepare.py wrote for this budget; None, and a line about it, if it did not.

    ``teacher_accuracy`` is one number, ``plain_accuracy`` one for each epoch.
    """
    path = folder / "reference.json"
    if not path.exists():
        print(f"no {path}: run examples/digits/prepare.py first to compare with a plain student")
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found["budget"] != budget(args):
        print(
            f"{path} is of another budget ({found['budget']}), no comparison: give prepare.py these arguments"
        )
        return None
    return found


def output_folder() -> Path:
    """The job's folder; of its own for a script started by hand."""
    return Path(os.environ.get("EDLDIST_OUTPUT") or "out/digits-by-hand")
