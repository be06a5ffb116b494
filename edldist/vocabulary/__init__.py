"""Which token has which id: on a teacher's side, on a student's, and from one to the other.

``Vocabulary`` is what a ``DistillLoader`` takes. ``IdMap`` brings ids and labels from one vocabulary to
another; ``align`` finds where two tokenizers cut one text at the same places (docs/vocabularies.md).
"""

from __future__ import annotations

from edldist.vocabulary.id_map import IdMap
from edldist.vocabulary.spans import Alignment, align
from edldist.vocabulary.tokens import Tokens
from edldist.vocabulary.wanted import Vocabulary

__all__ = ["Alignment", "IdMap", "Tokens", "Vocabulary", "align"]
