"""Train the small language model on the text alone."""

from __future__ import annotations

import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from examples.lm import recipe
from examples.lm.models import student
from examples.lm.text import read
from examples.lm.training import train_on_text


def main() -> None:
    args = recipe.options(__doc__).parse_args()
    torch.manual_seed(args.seed)
    found = train_on_text(student(), read(args.text), args.steps, args.seed)
    print(f"bits per byte: {found[-1]:.3f} at the end, {min(found):.3f} at its best")


if __name__ == "__main__":
    main()
