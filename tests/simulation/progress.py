"""What a model has become."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Progress"]


class Progress(NamedTuple):
    """A position, and every sample that ever counted in the model, in order, as a checksum."""

    steps: int = 0
    epoch: int = 0
    samples: int = 0
    digest: int = 0
