"""What all students of this example have in common: options, optimiser, the loss over all ranks, and the
judge."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from edldist import losses
from examples.retrieval.data import Collection
from examples.retrieval.encoders import DualEncoder
from examples.retrieval.mining import Texts, nearest
from examples.retrieval.models import KINDS

__all__ = [
    "LISTWISE",
    "TEMPERATURE",
    "Judged",
    "annotated",
    "contrast",
    "denoised",
    "judge",
    "optimization",
    "options",
    "parsed",
    "own_scores",
]

TEMPERATURE = 0.05  # of cosines
LISTWISE = 3.0  # weight of the order of a list beside its right passage
SURE_NOT, SURE = 0.1, 0.9  # chances by the teacher, as in RocketQA, section 4.3


def options(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--encoder",
        choices=tuple(KINDS),
        default="words",
        help="what reads the texts: words learnt from nothing, or a pretrained MiniLM (the extra encoder)",
    )
    parser.add_argument("--steps", type=int, help="default: as many as the encoder can afford")
    parser.add_argument(
        "--length", type=int, help="passages of a list, the annotated one included (default: likewise)"
    )
    parser.add_argument("--depth", type=int, default=20, help="mined for each query, to draw the list from")
    return parser


def parsed(parser: argparse.ArgumentParser, given: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for; ``steps`` and ``length`` of the encoder's kind where nothing was said of them."""
    args = parser.parse_args(given)
    kind = KINDS[args.encoder]
    args.steps = kind.steps if args.steps is None else args.steps
    args.length = kind.length if args.length is None else args.length
    return args


def optimization(model: nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=1e-2)


class Judged(NamedTuple):
    """What is held of the lists of a batch.

    Attributes:
        right: int64 [B], the place in its list of the passage that is to come first.
        answers: bool [B, L], passages that may answer the query: none of them is a negative.
        counts: bool [B], lists of which something is held at all.
    """

    right: Tensor
    answers: Tensor
    counts: Tensor


def annotated(batch: dict[str, Tensor]) -> Judged:
    """The annotated passage answers its query and no other does, which is wrong of many (*undenoised*)."""
    right = torch.zeros(len(batch["query"]), dtype=torch.int64)
    answers = torch.zeros(batch["passages"].shape, dtype=torch.bool)
    answers[:, 0] = True
    return Judged(right, answers, batch["annotated"])


def denoised(batch: dict[str, Tensor], scores: Tensor) -> Judged:
    """By the teacher's scores, float [B, L]: a negative is what it is sure of. Where nothing is annotated the
    passage
    that it holds to be the best is the right one, if it is sure of that, too."""
    chance = scores.float().sigmoid()
    right = torch.where(batch["annotated"], 0, chance.argmax(-1))
    answers = (chance >= SURE_NOT).scatter(1, right.unsqueeze(1), True)
    return Judged(right, answers, batch["annotated"] | (chance.amax(-1) > SURE))


def contrast(queries: Tensor, passages: Tensor, batch: dict[str, Tensor], judged: Judged) -> Tensor:
    """Each query against all lists of all ranks (*cross-batch negatives*), without what may answer it.

    Args:
        queries, passages: embeddings, float [B, D] and [B, L, D].
    """
    count, length = batch["passages"].shape
    candidates, begin = losses.gather_rows(passages.flatten(0, 1))
    numbers = losses.gather_rows(batch["passages"].flatten()).rows
    right = begin + torch.arange(count) * length + judged.right
    answers = torch.where(judged.answers, batch["passages"], -1)
    mask = (numbers.view(1, -1, 1) != answers.unsqueeze(1)).all(-1)  # wherever these passages stand
    mask = mask.scatter(1, right.unsqueeze(1), True) & judged.counts.unsqueeze(1)
    return losses.contrastive(queries @ candidates.T, right, temperature=TEMPERATURE, mask=mask)


def own_scores(queries: Tensor, passages: Tensor) -> Tensor:
    """Of each query's own list: float [B, L], of embeddings [B, D] and [B, L, D]."""
    return (passages @ queries.unsqueeze(-1)).squeeze(-1) / TEMPERATURE


def judge(model: DualEncoder, texts: Texts, collection: Collection) -> dict[str, float]:
    """Percent, over the queries that judge: MRR@10, and the share of the R passages that answer a query among
    the R
    nearest (R-precision). All passages that answer a query are known here, annotated or not."""
    most = max(10, *(len(collection.relevant[query]) for query in collection.test.tolist()))
    rank, precision = 0.0, 0.0
    found = nearest(model, texts, collection.test, most).tolist()
    for query, row in zip(collection.test.tolist(), found, strict=True):
        relevant = set(collection.relevant[query])
        rank += next((1 / place for place, passage in enumerate(row[:10], 1) if passage in relevant), 0.0)
        precision += sum(passage in relevant for passage in row[: len(relevant)]) / len(relevant)
    return {"mrr": 100 * rank / len(found), "r_precision": 100 * precision / len(found)}
