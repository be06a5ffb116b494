"""One teacher's vocabulary, as a student that says its own meets it: taken, refused in words, or translated.

The I/O thread hears what workers say of themselves; the training thread translates labels, which come later.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from edldist.errors import ConfigError, WireError
from edldist.labels.distributions import is_distribution
from edldist.labels.fingerprint import VocabularyMark
from edldist.labels.typed import GatheredLabels, HiddenLabels, SampledLabels, TopKLabels
from edldist.vocabulary.id_map import IdMap
from edldist.vocabulary.tokens import Tokens
from edldist.vocabulary.wanted import Vocabulary

__all__ = ["Translation"]

logger = logging.getLogger(__name__)

_MEASURED_EVERY = 100
_MUCH = 0.01
_MOST_LISTS = 4
_TYPED = (GatheredLabels, HiddenLabels, SampledLabels, TopKLabels)


class Translation:
    """Between one teacher group and this student.

    Args:
        teacher: name of the group.
        wanted: what the student says.
        note: gets the share of the teacher's probability that has no place in the student's vocabulary, on
            average over the positions of a batch; of the first batch, and of every hundredth.
    """

    def __init__(self, teacher: str, wanted: Vocabulary, note: Callable[[float], None]) -> None:
        self._teacher = teacher
        self._wanted = wanted
        self._note = note
        self._known: dict[VocabularyMark, Tokens] = {wanted.tokens.mark: wanted.tokens}
        self._objections: dict[VocabularyMark, str] = {}  # a large vocabulary takes a third of a second
        self._maps: dict[VocabularyMark | None, IdMap] = {}
        self._taken: VocabularyMark | None = None
        self._batches = 0
        self._said = False

    # --- the I/O thread -------------------------------------------------------------------------------

    def must_ask(self, mark: VocabularyMark | None) -> bool:
        """Whether nothing can be said of a worker before it has told its tokens."""
        return mark is not None and mark not in self._known and self._wanted.given is None

    def learn(self, mark: VocabularyMark, packed: memoryview) -> bool:
        """A worker told its tokens; whether these can be."""
        if mark in self._known:  # the workers of a group greet together, and all are asked
            return True
        try:
            tokens = Tokens.unpack(packed, mark)
        except WireError as exc:
            logger.warning("teacher %r: %s", self._teacher, exc)
            return False
        if len(self._known) > _MOST_LISTS:
            del self._known[next(each for each in self._known if each != self._wanted.tokens.mark)]
        self._known[mark] = tokens
        return True

    def objection(self, mark: VocabularyMark | None) -> str | None:
        """Why a worker with such a vocabulary cannot teach this student; None if it can."""
        ours = self._wanted.tokens
        if mark is None and self._wanted.given is None:
            return (
                f"it does not say what its vocabulary is, and this student has one of {ours.mark}. Start it "
                "with --vocabulary and the folder of its tokenizer, or leave vocabulary= out"
            )
        try:
            if self._map(mark) is not None:
                return None
        except ConfigError as exc:
            return str(exc)
        assert mark is not None
        if mark not in self._objections:
            if len(self._objections) > _MOST_LISTS:
                self._objections.clear()
            self._objections[mark] = self._in_words(self._known[mark])
        return self._objections[mark]

    def _in_words(self, theirs: Tokens) -> str:
        ours = self._wanted.tokens
        how = (
            "take its tokenizer, or say how its ids become this student's: vocabulary="
            "edldist.Vocabulary(..., ids='match'), or ids=[...] (docs/vocabularies.md)"
        )
        return (
            f"it has a vocabulary of {len(theirs):,} tokens, and this student another one of {len(ours):,}: "
            f"{ours.differences(theirs)}. Either {how}"
        )

    def taken(self, mark: VocabularyMark | None) -> None:
        """Labels of such a worker are on their way."""
        self._taken = mark

    # --- the training thread --------------------------------------------------------------------------

    def __call__(self, labels: Mapping[str, Any]) -> dict[str, Any]:
        """Labels in the student's ids.

        Raises:
            ConfigError: labels of this codec cannot be had in them without bias.
        """
        mapping = self._map(self._taken)
        assert mapping is not None, "no worker was taken"
        measured = self._batches % _MEASURED_EVERY == 0
        self._batches += 1
        translated, lost = dict(labels), []
        for name, value in labels.items():
            if isinstance(value, _TYPED) or (isinstance(value, Tensor) and is_distribution(name, value)):
                translated[name], without = mapping(name, value, measured=measured)
                lost += [] if without is None else [without]
        if measured and lost:
            self._measure(lost)
        return translated

    def _measure(self, lost: Sequence[Tensor]) -> None:
        share = float(torch.cat([each.reshape(-1) for each in lost]).nanmean())
        if share != share:
            return
        self._note(share)
        if not self._said:
            self._said = True
            level = logging.WARNING if share > _MUCH else logging.INFO
            logger.log(
                level,
                "teacher %r gives %.3g%% of its probability to entries that this student's vocabulary does "
                "not have (docs/vocabularies.md says what becomes of it)",
                *(self._teacher, 100 * share),
            )

    def _map(self, mark: VocabularyMark | None) -> IdMap | None:
        """How ids of such a vocabulary become the student's; None if they do not.

        Raises:
            ConfigError: they have nothing in common.
        """
        if (found := self._maps.get(mark)) is None and (made := self._made(mark)) is not None:
            self._maps[mark] = found = made
        return found

    def _made(self, mark: VocabularyMark | None) -> IdMap | None:
        wanted = self._wanted
        if wanted.given is not None:
            return wanted.given
        if mark == wanted.tokens.mark:
            return IdMap.same(len(wanted.tokens), wanted.size)
        if mark is None or not wanted.matches:
            return None
        return IdMap.of_tokens(self._known[mark], wanted.tokens, wanted.size)
