"""The student without a teacher: the loop that student.py makes a distilled one."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from examples.digits import recipe
from examples.digits.data import Digits, DrawSampler, labelled, splits, train_loader
from examples.digits.models import student

Loss = Callable[[nn.Module, dict[str, Tensor]], Tensor]


def train_plain(args: argparse.Namespace, say: Callable[[str], None] = print) -> list[float]:
    """Train on the few true labels alone, on one rank.

    Returns:
        The test accuracy after each epoch.
    """
    train, _ = splits(args.seed)
    return fit(args, labelled(train, args.labels_per_class, args.seed), true_labels, say)[1]


def true_labels(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The plain student's loss."""
    return cross_entropy(model(batch["image"]), batch["label"])


def fit(
    args: argparse.Namespace, dataset: Digits, loss_of: Loss, say: Callable[[str], None] = print
) -> tuple[nn.Module, list[float]]:
    """Train a student on one rank; initial weights, steps, optimizer and schedule are those of student.py.

    An epoch has as many draws as there are training images, however few of them ``dataset`` holds: these
    then come several times, each time in another view. On all images the order is that of student.py, too.

    Returns:
        The student, and its test accuracy after each epoch.
    """
    torch.manual_seed(args.seed)
    train, test = splits(args.seed)
    sampler = DrawSampler(len(train), args.batch_size, seed=args.seed, rank=0, world_size=1)
    loader = train_loader(dataset, sampler)
    model = student()
    optimizer, scheduler = recipe.optimization(model, args, args.epochs * sampler.batches_per_epoch)
    accuracies = []
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        for batch in loader:
            loss = loss_of(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        accuracies.append(recipe.accuracy(model, test))
        if (epoch + 1) % 20 == 0 or epoch + 1 == args.epochs:
            say(f"plain student: epoch {epoch + 1}/{args.epochs}, test accuracy {accuracies[-1]:.2%}")
    return model, accuracies
