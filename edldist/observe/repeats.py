"""Warnings that may come again and again: the first is said, and of the further ones how many there were."""

from __future__ import annotations

import logging
import re

__all__ = ["Repeats"]

_MOST = 64
_SAID_AT = 10
_NUMBER = re.compile(r"(?<![^\s'\"()])[^\s'\"()0-9]*[0-9][^\s'\"()]*")
"""Words with digits: numbers with their signs and units, ids of requests, addresses.

It is looked for at the beginning of each word alone: texts come from others, and from each letter on it would
cost the square of their length.
"""


class Repeats:
    """Says a warning once, then with its number at the 10th, the 100th time and so on.

    Warnings that differ in numbers alone, or ids, are the same one: a token here, another position there, a
    value that is never twice the same. ``end`` says how many were not said. Each of them is in the log at
    DEBUG. Owned by one thread.

    Args:
        logger: of the module whose warnings these are.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        # By kind: how often it came, how many of these were said or counted for a reader, and the first.
        self._seen: dict[tuple[str, str], tuple[int, int, str]] = {}

    def warn(self, text: str, detail: str = "", *, of: str = "", first: str = "") -> None:
        """Log a warning, or count it.

        Args:
            text: what makes it the same as another, but for its numbers.
            detail: what may differ between repetitions, to be said behind it.
            of: whom it is about, where that makes it another one, numbers and all.
            first: to be said behind the first one alone, as a traceback.
        """
        kind = of, _NUMBER.sub("#", text)
        times, told, original = self._seen.pop(kind, (0, 0, text))
        times += 1
        if times == 1:
            told = self._say(text + detail + first, 1)
        elif times == told * _SAID_AT:
            told = self._say(f"{text}{detail} ({times} times so far)", times)
        else:
            self._logger.debug("%s%s", text, detail)
        self._seen[kind] = times, told, original  # the latest comes last
        if len(self._seen) > _MOST:
            self._close(next(iter(self._seen)))

    def end(self) -> None:
        """Say what was not said yet; nothing more will come."""
        for kind in list(self._seen):
            self._close(kind)

    def _close(self, kind: tuple[str, str]) -> None:
        times, told, original = self._seen.pop(kind)
        if times > told:
            self._say(f"{original} ({times - told} more)", times)

    def _say(self, words: str, times: int) -> int:
        self._logger.warning("%s", words)
        return times
