"""The student without a teacher: the loop that student.py makes a distilled one."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch.nn.functional import cross_entropy

from examples.digits import recipe
from examples.digits.data import DrawSampler, splits, train_loader
from examples.digits.models import student


def train_plain(args: argparse.Namespace, say: Callable[[str], None] = print) -> list[float]:
    """Train on the true labels alone, on one rank.

    Initial weights, order, augmentation, steps, optimizer and schedule are those of student.py.

    Returns:
        The test accuracy after each epoch.
    """
    torch.manual_seed(args.seed)
    train, test = splits(args.seed)
    sampler = DrawSampler(len(train), args.batch_size, seed=args.seed, rank=0, world_size=1)
    loader = train_loader(train, sampler)
    model = student()
    optimizer, scheduler = recipe.optimization(model, args, args.epochs * sampler.batches_per_epoch)
    accuracies = []
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        for batch in loader:
            loss = cross_entropy(model(batch["image"]), batch["label"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
        accuracies.append(recipe.accuracy(model, test))
        if (epoch + 1) % 10 == 0 or epoch + 1 == args.epochs:
            say(f"plain student: epoch {epoch + 1}/{args.epochs}, test accuracy {accuracies[-1]:.2%}")
    return accuracies
