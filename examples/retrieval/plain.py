"""Train the student without a teacher: on cross-batch negatives, or on mined ones that nobody has checked.

In one process; what several ranks would make of the same global batches is the same (tests/examples).
"""

from __future__ import annotations

import sys
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch.utils.data import DataLoader

from examples.retrieval import recipe
from examples.retrieval.data import Collection
from examples.retrieval.encoders import DualEncoder
from examples.retrieval.mining import Lists, Mined, Texts
from examples.retrieval.models import KINDS, Kind
from examples.retrieval.prepare import prepare, warmed_up


def train_plainly(
    model: DualEncoder,
    kind: Kind,
    collection: Collection,
    texts: Texts,
    steps: int,
    seed: int,
    depth: int,
    length: int,
) -> None:
    """On lists of that length, drawn from so many mined passages; of length 1 nothing is mined."""
    torch.manual_seed(seed)
    mined = Mined(depth)
    lists = Lists(collection, collection.train, mined, length, seed)
    loader = DataLoader(lists, kind.batch, shuffle=True, drop_last=True)
    optimizer = recipe.optimization(model, kind.rate)
    step = 0
    while step < steps:
        mined.look(model, texts, collection.train)
        for batch in loader:
            queries, passages = model(texts.queries[batch["query"]], texts.passages[batch["passages"]])
            loss = recipe.contrast(queries, passages, batch, recipe.annotated(batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if step == steps:
                break


def main() -> None:
    parser = recipe.options(__doc__)
    parser.add_argument("--negatives", choices=("cross-batch", "undenoised"), default="undenoised")
    args = recipe.parsed(parser)
    kind = KINDS[args.encoder]
    prepare(args.seed, args.encoder)
    collection = kind.collection(args.seed)
    texts, model = Texts(collection, kind.read), warmed_up(args.seed, args.encoder)
    length = 1 if args.negatives == "cross-batch" else args.length
    train_plainly(model, kind, collection, texts, args.steps, args.seed, args.depth, length)
    figures = recipe.judge(model, texts, collection)
    print(f"MRR@10 {figures['mrr']:.1f}, R-precision {figures['r_precision']:.1f}")


if __name__ == "__main__":
    main()
