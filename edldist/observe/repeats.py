"""Warnings that may come again and again: the first is said, and of the further ones how many there were."""

from __future__ import annotations

import logging

__all__ = ["Repeats"]

_MOST = 64
_SAID_AT = 10


class Repeats:
    """Says a warning once, then with its number at the 10th, the 100th time and so on.

    ``end`` says how many were not said. Each of them is in the log at DEBUG. Owned by one thread.

    Args:
        logger: of the module whose warnings these are.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        # By text: how often it came, and how many of these were said or counted for a reader.
        self._seen: dict[str, tuple[int, int]] = {}

    def warn(self, text: str, detail: str = "") -> None:
        """Log a warning, or count it.

        Args:
            text: what makes it the same as another.
            detail: what may differ between repetitions, to be said behind it.
        """
        times, told = self._seen.pop(text, (0, 0))
        times += 1
        if times == 1:
            told = self._say(text + detail, 1)
        elif times == told * _SAID_AT:
            told = self._say(f"{text}{detail} ({times} times so far)", times)
        else:
            self._logger.debug("%s%s", text, detail)
        self._seen[text] = times, told  # the latest comes last
        if len(self._seen) > _MOST:
            self._close(next(iter(self._seen)))

    def end(self) -> None:
        """Say what was not said yet; nothing more will come."""
        for text in list(self._seen):
            self._close(text)

    def _close(self, text: str) -> None:
        times, told = self._seen.pop(text)
        if times > told:
            self._say(f"{text} ({times - told} more)", times)

    def _say(self, words: str, times: int) -> int:
        self._logger.warning("%s", words)
        return times
