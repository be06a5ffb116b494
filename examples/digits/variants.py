"""The students that the sweep compares: alike in all but the images that they see and their loss."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import edldist
from examples.digits.data import Digits, labelled, splits, unlabelled
from examples.digits.models import teacher
from examples.digits.plain import Loss, fit, true_labels

MIXUP_BETA = 0.2

Trained = tuple[nn.Module, list[float]]


def train_variant(name: str, args: argparse.Namespace, weights: Path) -> Trained:
    """Train one student in this process; it, and its test accuracy after each epoch.

    Args:
        name: a key of ``VARIANTS``.
        args: the options of student.py.
        weights: the teacher's.
    """
    train, _ = splits(args.seed)
    few = labelled(train, args.labels_per_class, args.seed)
    return VARIANTS[name](args, train, few, weights)


def _plain(args: argparse.Namespace, train: Digits, few: Digits, weights: Path) -> Trained:
    return fit(args, few, true_labels, _silent)


def _mixup(args: argparse.Namespace, train: Digits, few: Digits, weights: Path) -> Trained:
    return fit(args, few, mixed_labels, _silent)


def _distilled(args: argparse.Namespace, train: Digits, few: Digits, weights: Path) -> Trained:
    return fit(args, unlabelled(train), soft_labels(weights, args.temperature), _silent)


def _distilled_on_few(args: argparse.Namespace, train: Digits, few: Digits, weights: Path) -> Trained:
    return fit(args, unlabelled(few), soft_labels(weights, args.temperature), _silent)


def _all_labels(args: argparse.Namespace, train: Digits, few: Digits, weights: Path) -> Trained:
    return fit(args, train, true_labels, _silent)


VARIANTS: dict[str, Callable[[argparse.Namespace, Digits, Digits, Path], Trained]] = {
    "plain": _plain,
    "mixup": _mixup,
    "distilled": _distilled,
    "distilled_on_few": _distilled_on_few,
    "all_labels": _all_labels,
}
"""``plain``, ``mixup``: the few labelled images. ``distilled``: all images, no labels, as the job does.
``distilled_on_few``: the few images, no labels. ``all_labels``: all images and their true labels."""


def soft_labels(weights: Path, temperature: float) -> Loss:
    """The distilled student's loss, with the teacher in this process.

    Its labels are those of the job's workers, bit for bit: whole batches, one thread.
    """
    model = teacher()
    model.load_state_dict(load_file(weights))
    model.eval()

    def loss(student: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        with torch.no_grad():
            logits = model(batch["image"])
        return edldist.losses.kd(student(batch["image"]), logits, temperature=temperature, alpha=1.0)

    return loss


def mixed_labels(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The plain student's loss on mixtures of two images (mixup; Zhang and others, 2018)."""
    share = torch.distributions.Beta(MIXUP_BETA, MIXUP_BETA).sample()
    other = torch.randperm(len(batch["image"]))
    logits = model(share * batch["image"] + (1 - share) * batch["image"][other])
    first, second = cross_entropy(logits, batch["label"]), cross_entropy(logits, batch["label"][other])
    return share * first + (1 - share) * second


def _silent(line: str) -> None:
    pass
