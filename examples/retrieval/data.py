"""The collection, generated from a seed: passages, queries, and one annotated passage for some of the
queries.

A *fact* is a subject and an aspect of it. Four to sixteen passages tell of a fact, and each of its queries is
answered by all of them; but whoever annotated the collection has marked one passage for a query and looked no
further, as in MS MARCO. All others that answer it are *false negatives*.

A subject has two names and an aspect three words, and a text uses one of either (a passage sometimes two
words of the aspect). So a query and a passage that answers it often share no word: that several words mean
one thing has to be learnt from annotated pairs. Fillers, and words of another aspect or subject that a
passage mentions in passing, are noise. No fact has queries of two kinds: annotated ones to learn from, ones
to learn from that nobody annotated, and those that judge. The passages of all facts are in one pile.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

__all__ = ["NOBODY", "SUBJECTS", "Collection", "generated"]

NOBODY = -1  # has marked a passage for that query

SUBJECTS, _NAMES = 50, 2
_ASPECTS, _WORDS = 20, 3
_ASPECTS_EACH = 6  # of a subject: its facts
_FILLERS = 200
_PASSAGES_EACH = (4, 16)  # of a fact
_QUERIES_EACH = 16  # of a fact
_SHARES = (0.35, 0.4)  # of the facts: annotated, and without annotation; the rest judges
_OTHER_SUBJECT = 0.3  # chance that a passage mentions one
_PASSAGE_FILLERS, _QUERY_FILLERS = 4, 1


@dataclass(frozen=True)
class Collection:
    """Texts, and who answers whom.

    Attributes:
        passages: N texts.
        queries: Q texts.
        relevant: of each query all passages that answer it. Nobody learns from it: it judges.
        annotated: int64 [Q], the passage that somebody marked for it, or ``NOBODY``.
        train: int64, queries with an annotated passage.
        unlabelled: int64, queries without.
        test: int64, queries that judge.

    Raises:
        ValueError: a query has no passage that answers it, or one of ``train`` no annotated one, or one that
            is not in the collection.
    """

    passages: list[str]
    queries: list[str]
    relevant: list[list[int]]
    annotated: Tensor
    train: Tensor
    unlabelled: Tensor
    test: Tensor

    def __post_init__(self) -> None:
        without = [query for query in self.test.tolist() if not self.relevant[query]]
        if without:
            raise ValueError(
                f"query {without[0]} ({self.queries[without[0]]!r}) judges, and no passage answers it (so "
                f"have {len(without)} queries): leave it out"
            )
        marked = self.annotated[self.train]
        wrong = self.train[(marked < 0) | (marked >= len(self.passages))].tolist()
        if wrong:
            raise ValueError(
                f"query {wrong[0]} ({self.queries[wrong[0]]!r}) has passage {int(self.annotated[wrong[0]])} "
                f"annotated, of {len(self.passages)} (so have {len(wrong)} queries): annotate one, or let "
                "it be one of the unlabelled"
            )


@functools.lru_cache(maxsize=2)
def generated(seed: int, subjects: int = SUBJECTS) -> Collection:
    """The collection of a seed, with so many subjects to write about; another seed has other words, facts and
    annotations."""
    chance = np.random.default_rng(seed)
    words = iter(_words(chance, subjects * _NAMES + _ASPECTS * _WORDS + _FILLERS))
    names = [[next(words) for _ in range(_NAMES)] for _ in range(subjects)]
    aspects = [[next(words) for _ in range(_WORDS)] for _ in range(_ASPECTS)]
    text = _Text(chance, names, aspects, list(words))
    facts = [
        (subject, int(aspect))
        for subject in range(subjects)
        for aspect in chance.choice(_ASPECTS, _ASPECTS_EACH, replace=False)
    ]
    passages: list[str] = []
    queries: list[str] = []
    relevant: list[list[int]] = []
    of_kind: list[list[int]] = [[], [], []]
    order = chance.permutation(len(facts))
    bounds = np.cumsum([round(share * len(facts)) for share in _SHARES])
    for place, number in enumerate(order):
        told = int(chance.integers(_PASSAGES_EACH[0], _PASSAGES_EACH[1] + 1))
        answers = list(range(len(passages), len(passages) + told))
        passages += [text.passage(*facts[number]) for _ in answers]
        for _ in range(_QUERIES_EACH):
            of_kind[int(np.searchsorted(bounds, place, side="right"))].append(len(queries))
            queries.append(text.query(*facts[number]))
            relevant.append(answers)
    train, unlabelled, test = (torch.tensor(numbers) for numbers in of_kind)
    annotated = torch.full((len(queries),), NOBODY)
    for query in train.tolist():
        annotated[query] = int(chance.choice(relevant[query]))
    return Collection(passages, queries, relevant, annotated, train, unlabelled, test)


class _Text:
    """Writes about facts."""

    def __init__(
        self,
        chance: np.random.Generator,
        names: Sequence[Sequence[str]],
        aspects: Sequence[Sequence[str]],
        fillers: Sequence[str],
    ) -> None:
        self._chance, self._names, self._aspects, self._fillers = chance, names, aspects, fillers
        weights = 1.0 / np.arange(2, len(fillers) + 2)
        self._frequent = weights / weights.sum()

    def passage(self, subject: int, aspect: int) -> str:
        chance = self._chance
        said = [self._one(self._names[subject])]
        said += chance.choice(self._aspects[aspect], chance.integers(1, 3), replace=False).tolist()
        said.append(self._one(self._aspects[int(chance.integers(len(self._aspects)))]))
        if chance.random() < _OTHER_SUBJECT:
            said.append(self._one(self._names[int(chance.integers(len(self._names)))]))
        return self._shuffled(said, _PASSAGE_FILLERS)

    def query(self, subject: int, aspect: int) -> str:
        return self._shuffled(
            [self._one(self._names[subject]), self._one(self._aspects[aspect])], _QUERY_FILLERS
        )

    def _one(self, words: Sequence[str]) -> str:
        return words[int(self._chance.integers(len(words)))]

    def _shuffled(self, said: list[str], fillers: int) -> str:
        said = said + self._chance.choice(self._fillers, fillers, p=self._frequent).tolist()
        return " ".join(said[at] for at in self._chance.permutation(len(said)))


def _words(chance: np.random.Generator, count: int) -> list[str]:
    """Words that nobody has ever said, all different."""
    syllables = ["".join(letters) for letters in product("bdfgklmnprstvz", "aeiou")]
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(chance.choice(syllables, chance.integers(2, 5)))] = None
    return list(found)
