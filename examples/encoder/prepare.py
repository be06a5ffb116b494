"""Fit the teacher's head to the few labelled texts: a logistic regression on MiniLM's embeddings."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression

from examples.encoder.models import Encoder, head_path
from examples.encoder.text import split


def prepare(seed: int) -> None:
    path = head_path(seed)
    if path.exists():
        return
    given = split(seed)
    with torch.no_grad():
        embeddings = Encoder().eval()(given.labelled)
    fitted = LogisticRegression(C=10.0, max_iter=2_000).fit(embeddings.numpy(), given.subjects)
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    head = {"weight": fitted.coef_, "bias": fitted.intercept_}
    save_file({name: torch.from_numpy(value).float().contiguous() for name, value in head.items()}, partial)
    partial.rename(path)
    print(f"teacher: a head fitted to {len(given.labelled)} labelled texts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    prepare(parser.parse_args().seed)


if __name__ == "__main__":
    main()
