"""Fit the teacher's head to the few labelled texts: a logistic regression on MiniLM's embeddings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from sklearn.linear_model import LogisticRegression

from examples.common.kept import fingerprint, kept_weights
from examples.encoder.models import Encoder, head_path
from examples.encoder.text import split


def prepare(seed: int) -> None:
    """Have the head of a seed fitted, where it is missing or was fitted otherwise."""
    sources = [Path(__file__).resolve().with_name(f"{name}.py") for name in ("models", "prepare", "text")]
    kept_weights(head_path(seed), fingerprint({"seed": seed}, sources), lambda: (fit(seed), {}))


def fit(seed: int) -> dict[str, torch.Tensor]:
    given = split(seed)
    with torch.no_grad():
        embeddings = Encoder().eval()(given.labelled)
    fitted = LogisticRegression(C=10.0, max_iter=2_000).fit(embeddings.numpy(), given.subjects)
    print(f"teacher: a head fitted to {len(given.labelled)} labelled texts")
    head = {"weight": fitted.coef_, "bias": fitted.intercept_}
    return {name: torch.from_numpy(value).float() for name, value in head.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    prepare(parser.parse_args().seed)


if __name__ == "__main__":
    main()
