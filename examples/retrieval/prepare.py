"""Train what the example begins with, on the annotated pairs of a seed's collection, where it is missing.

First the student, on cross-batch negatives alone (RocketQA's first step: all students go on from it); then
the cross-encoder, which begins with the words as that student knows them, on annotated passages against
random ones and such as that student finds (its second step).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

# The script's folder is on the path, not the project's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from examples.common.kept import fingerprint, kept_weights
from examples.retrieval import recipe
from examples.retrieval.data import Collection
from examples.retrieval.encoders import CrossEncoder, DualEncoder
from examples.retrieval.mining import Texts, nearest
from examples.retrieval.models import KINDS, Kind, student, teacher

__all__ = ["prepare", "train_reader", "warm_up", "warmed_up", "weights"]

HERE = Path(__file__).resolve().parent
_BUILD = HERE / "build"
_SOURCES = ("data.py", "encoders.py", "mining.py", "models.py", "prepare.py", "recipe.py")
_DEPTH = 100  # how deep the student looks for hard negatives


def weights(seed: int, encoder: str = "words") -> tuple[Path, Path]:
    """Of the student that was warmed up, and of the cross-encoder."""
    of = f"{encoder}-{seed}.safetensors"
    return _BUILD / f"student-{of}", _BUILD / f"teacher-{of}"


def prepare(seed: int, encoder: str = "words") -> None:
    early, late = weights(seed, encoder)
    kind = KINDS[encoder]
    key = fingerprint({"seed": seed}, [HERE / name for name in (*_SOURCES, f"{encoder}.py")])
    collection = kind.collection(seed)
    texts = Texts(collection, kind.read)

    def made_early() -> tuple[Mapping[str, Tensor], Mapping[str, float]]:
        model = student(seed, encoder)
        warm_up(model, kind, collection, texts)
        return model.state_dict(), recipe.judge(model, texts, collection)

    def made_late() -> tuple[Mapping[str, Tensor], Mapping[str, float]]:
        torch.manual_seed(seed)
        model, judged = warmed_up(seed, encoder), teacher(seed, encoder)
        judged.reader.begin_with(model)
        found = nearest(model, texts, collection.train, _DEPTH)
        loss = train_reader(judged.reader, kind, found, collection, texts)
        return judged.state_dict(), {"loss": loss}

    figures = kept_weights(early, key, made_early)
    print(
        f"student, after {kind.first_steps} steps on cross-batch negatives: MRR@10 {figures['mrr']:.1f}",
        flush=True,
    )
    figures = kept_weights(late, key, made_late)
    print(f"teacher, after {kind.reader_steps} steps on annotated pairs: loss {figures['loss']:.3f}")


def warmed_up(seed: int, encoder: str = "words") -> DualEncoder:
    """The student with which all others begin."""
    model = student(seed, encoder)
    model.load_state_dict(load_file(weights(seed, encoder)[0]))
    return model


def warm_up(model: DualEncoder, kind: Kind, collection: Collection, texts: Texts) -> None:
    optimizer = recipe.optimization(model, kind.rate)
    for _ in range(kind.first_steps):
        query = collection.train[torch.randint(len(collection.train), (kind.batch,))]
        batch = {"query": query, "passages": collection.annotated[query].unsqueeze(1)}
        batch["annotated"] = torch.ones(len(query), dtype=torch.bool)
        queries, passages = model(texts.queries[query], texts.passages[batch["passages"]])
        loss = recipe.contrast(queries, passages, batch, recipe.annotated(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def train_reader(
    reader: CrossEncoder, kind: Kind, found: Tensor, collection: Collection, texts: Texts
) -> float:
    """On each annotated pair, and on its query with passages that are taken for wrong ones: some are false
    negatives, which the reader sees as right ones elsewhere.

    Args:
        found: int64 [len(train), depth], what a student found for the queries.

    Returns:
        The loss of the last hundred steps, or of all where there are fewer.
    """
    optimizer, steps = recipe.optimization(reader, kind.reader_rate), kind.reader_steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, kind.reader_rate, total_steps=steps, pct_start=0.1
    )
    losses = []
    for _ in range(steps):
        place = torch.randint(len(found), (kind.batch,))
        query = collection.train[place]
        right = collection.annotated[query].unsqueeze(1)
        hard = found[place].gather(1, torch.randint(found.shape[1], (len(place), kind.reader_negatives)))
        easy = torch.randint(len(collection.passages), (len(place), kind.reader_negatives))
        passages = torch.cat([right, hard, easy], 1)
        scores = reader(texts.queries[query], texts.passages[passages])
        loss = F.binary_cross_entropy_with_logits(scores, (passages == right).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return sum(losses[-100:]) / len(losses[-100:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--encoder", choices=tuple(KINDS), default="words")
    args = parser.parse_args()
    prepare(args.seed, args.encoder)


if __name__ == "__main__":
    main()
