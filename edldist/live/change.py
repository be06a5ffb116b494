"""Whether an error of a training script is a change of its group, or one of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch.distributed as dist

from edldist.errors import RegroupError

__all__ = ["is_change"]

_OF_GLOO = re.compile(r"\[\S*\bgloo/\S+:\d+\]")
"""gloo begins each of its errors with its own file and line."""


def is_change(error: BaseException, ended: str) -> bool:
    """Whether an operation of the group ended in this error, or in one that it was made of.

    What a script raises for reasons of its own is none, however close to a change it comes.

    Args:
        error: what ended the block.
        ended: why the generation has ended, empty if it has not. An error that crossed torch's C++ is a
            ``RuntimeError`` that holds this as text.
    """
    return any(_tells_of(each, ended) for each in _chain(error))


def _tells_of(error: BaseException, ended: str) -> bool:
    if isinstance(error, RegroupError | dist.DistError):
        return True
    if not isinstance(error, RuntimeError):
        return False
    text = str(error)
    return _OF_GLOO.search(text) is not None or bool(ended and ended in text)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and what was being handled meanwhile."""
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            left += [each.__cause__, None if each.__suppress_context__ else each.__context__]
