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
from examples.retrieval.data import Collection, generated
from examples.retrieval.mining import Texts, nearest
from examples.retrieval.models import CrossEncoder, DualEncoder, student, teacher, tokens

__all__ = ["prepare", "train_reader", "warm_up", "warmed_up", "weights"]

HERE = Path(__file__).resolve().parent
_BUILD = HERE / "build"
_SOURCES = ("data.py", "mining.py", "models.py", "prepare.py", "recipe.py")
STUDENT_STEPS, READER_STEPS = 250, 600
_NEGATIVES, _DEPTH = 4, 100  # of either kind for each pair, and how deep the student looks


def weights(seed: int) -> tuple[Path, Path]:
    """Of the student that was warmed up, and of the cross-encoder."""
    return _BUILD / f"student-{seed}.safetensors", _BUILD / f"teacher-{seed}.safetensors"


def prepare(seed: int) -> None:
    early, late = weights(seed)
    key = fingerprint({"seed": seed}, [HERE / name for name in _SOURCES])
    collection = generated(seed)
    texts = Texts(collection, tokens)

    def made_early() -> tuple[Mapping[str, Tensor], Mapping[str, float]]:
        model = student(seed)
        warm_up(model, collection, texts, STUDENT_STEPS)
        return model.state_dict(), recipe.judge(model, texts, collection)

    def made_late() -> tuple[Mapping[str, Tensor], Mapping[str, float]]:
        torch.manual_seed(seed)
        model, judged = warmed_up(seed), teacher(seed)
        judged.reader.words.load_state_dict(model.words.state_dict())
        found = nearest(model, texts, collection.train, _DEPTH)
        loss = train_reader(judged.reader, found, collection, texts, READER_STEPS)
        return judged.state_dict(), {"loss": loss}

    figures = kept_weights(early, key, made_early)
    print(
        f"student, after {STUDENT_STEPS} steps on cross-batch negatives: MRR@10 {figures['mrr']:.1f}",
        flush=True,
    )
    figures = kept_weights(late, key, made_late)
    print(f"teacher, after {READER_STEPS} steps on annotated pairs: loss {figures['loss']:.3f}")


def warmed_up(seed: int) -> DualEncoder:
    """The student with which all others begin."""
    model = student(seed)
    model.load_state_dict(load_file(weights(seed)[0]))
    return model


def warm_up(model: DualEncoder, collection: Collection, texts: Texts, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    for _ in range(steps):
        query = collection.train[torch.randint(len(collection.train), (recipe.BATCH,))]
        batch = {"query": query, "passages": collection.annotated[query].unsqueeze(1)}
        batch["annotated"] = torch.ones(len(query), dtype=torch.bool)
        queries, passages = model(texts.queries[query], texts.passages[batch["passages"]])
        loss = recipe.contrast(queries, passages, batch, recipe.annotated(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def train_reader(
    reader: CrossEncoder, found: Tensor, collection: Collection, texts: Texts, steps: int
) -> float:
    """On each annotated pair, and on its query with passages that are taken for wrong ones: some are false
    negatives, which the reader sees as right ones elsewhere.

    Args:
        found: int64 [len(train), depth], what a student found for the queries.

    Returns:
        The loss of the last hundred steps.
    """
    optimizer = torch.optim.AdamW(reader.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    losses = []
    for _ in range(steps):
        place = torch.randint(len(found), (recipe.BATCH,))
        query = collection.train[place]
        right = collection.annotated[query].unsqueeze(1)
        hard = found[place].gather(1, torch.randint(found.shape[1], (len(place), _NEGATIVES)))
        easy = torch.randint(len(collection.passages), (len(place), _NEGATIVES))
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
    prepare(parser.parse_args().seed)


if __name__ == "__main__":
    main()
