"""The student, which embeds queries and passages apart, and the teacher, which reads both together.

There are two kinds of them, by what reads the texts: words that they learn from nothing, and a pretrained
MiniLM. All steps of the example are the same for both; each has as much of everything as it can afford.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from examples.retrieval import minilm, words
from examples.retrieval.data import Collection, generated
from examples.retrieval.encoders import CrossEncoder, DualEncoder

__all__ = ["KINDS", "Kind", "student", "teacher"]


@dataclass(frozen=True)
class Kind:
    """What a kind consists of, and its budget.

    Attributes:
        read: makes of N texts what both models take: int64 [N, T], or float32 [N, T, W].
        dual: makes the student.
        cross: makes what the teacher reads with.
        subjects: of the collection: how large it is.
        batch: queries of a global batch.
        steps: of each student behind the first steps.
        length: passages of a list.
        first_steps: of the student with which all others begin.
        reader_steps: of the teacher's training.
        rate: of the student's optimiser.
        reader_negatives: of either kind beside each annotated pair of the teacher's training.
        reader_rate: the highest of the teacher's.
        joint_rate: of the teacher's while it learns beside the student.
    """

    read: Callable[[Sequence[str]], Tensor]
    dual: Callable[[], DualEncoder]
    cross: Callable[[], CrossEncoder]
    subjects: int
    batch: int
    steps: int
    length: int
    first_steps: int
    reader_steps: int
    reader_negatives: int
    rate: float
    reader_rate: float
    joint_rate: float

    def collection(self, seed: int) -> Collection:
        """The collection of a seed, in this kind's size."""
        return generated(seed, self.subjects)


KINDS = {
    "words": Kind(
        words.tokens,
        words.WordsDual,
        words.WordsCross,
        subjects=50,
        batch=64,
        steps=340,
        length=16,
        first_steps=250,
        reader_steps=600,
        reader_negatives=4,
        rate=3e-3,
        reader_rate=2e-3,
        joint_rate=2e-4,
    ),
    "minilm": Kind(
        minilm.read,
        minilm.MiniLMDual,
        minilm.MiniLMCross,
        subjects=10,
        batch=16,
        steps=60,
        length=6,
        first_steps=40,
        reader_steps=60,
        reader_negatives=2,
        rate=2e-4,
        reader_rate=3e-4,
        joint_rate=5e-5,
    ),
}
"""By the name that ``--encoder`` takes."""


class _Teacher(nn.Module):
    """The cross-encoder with a collection at hand: queries and passages travel as their numbers."""

    def __init__(self, reader: CrossEncoder, queries: Tensor, passages: Tensor) -> None:
        super().__init__()
        self.reader = reader
        self.register_buffer("queries", queries, persistent=False)
        self.register_buffer("passages", passages, persistent=False)

    def forward(self, query: Tensor, passages: Tensor) -> dict[str, Tensor]:
        """``scores`` float32 [B, L] of numbers int64 [B] and [B, L]."""
        return {"scores": self.reader(self.queries[query], self.passages[passages])}


def student(seed: int = 0, encoder: str = "words") -> DualEncoder:
    torch.manual_seed(seed)
    return KINDS[encoder].dual()


def teacher(seed: int = 0, encoder: str = "words") -> nn.Module:
    """How sure the cross-encoder is, as a logit, that each passage of a list answers its query."""
    kind = KINDS[encoder]
    collection = kind.collection(seed)
    return _Teacher(kind.cross(), kind.read(collection.queries), kind.read(collection.passages))
