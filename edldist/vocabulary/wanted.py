"""What a student says of its vocabulary, and of how a teacher's goes together with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from edldist.errors import ConfigError
from edldist.vocabulary.id_map import IdMap
from edldist.vocabulary.sources import tokens_of
from edldist.vocabulary.tokens import Tokens

__all__ = ["Vocabulary", "vocabularies_of"]


class Vocabulary:
    """``vocabulary=`` of a ``DistillLoader``: the ids in which the loop reads labels.

    Workers with another vocabulary are refused, unless ``ids`` says how theirs becomes this one. Entries of a
    teacher's logits behind its tokens (a model of 50,304 for 50,257) are padding, and cut.

    Args:
        source: a tokenizer of transformers or tokenizers, a folder with one or one of its files, a dict from
            tokens to ids, or a list of tokens in the order of their ids.
        size: entries of the student's logits, where they are more than the tokens; default: as many.
        ids: how a teacher's other vocabulary becomes this one: ``"match"``: by the tokens, which are the same
            text; or by the teacher's id the student's, -1 for none. None: not at all.

    Raises:
        ConfigError: it is none of these.
    """

    def __init__(
        self,
        source: Any,
        size: int | None = None,
        ids: Literal["match"] | Sequence[int] | Tensor | None = None,
    ) -> None:
        self.tokens: Tokens = tokens_of(source)
        self.size = len(self.tokens) if size is None else size
        if not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < len(self.tokens):
            raise ConfigError(
                f"Vocabulary(size={size!r}): the student's logits have an entry for each of the "
                f"{len(self.tokens):,} "
                "tokens, at least"
            )
        if isinstance(ids, str) and ids != "match":
            raise ConfigError(f"Vocabulary(ids={ids!r}): use 'match', or by the teacher's ids the student's")
        self.matches = isinstance(ids, str)
        self.given = None if ids is None or isinstance(ids, str) else IdMap(ids, self.size)


def vocabularies_of(vocabulary: Any, teachers: Sequence[str]) -> dict[str, Vocabulary]:
    """What a ``DistillLoader`` is given, by teacher.

    Raises:
        ConfigError: it is no vocabulary, or for a teacher that there is not.
    """
    if vocabulary is None:
        return {}
    by_teacher = isinstance(vocabulary, Mapping) and not any(
        isinstance(each, int) for each in vocabulary.values()
    )
    if not by_teacher:
        one = vocabulary if isinstance(vocabulary, Vocabulary) else Vocabulary(vocabulary)
        return dict.fromkeys(teachers, one)
    if strangers := vocabulary.keys() - set(teachers):
        raise ConfigError(f"vocabulary: there is no teacher {min(strangers)!r} among {list(teachers)}")
    return {
        teacher: each if isinstance(each, Vocabulary) else Vocabulary(each)
        for teacher, each in vocabulary.items()
        if each is not None
    }
