"""Which small files of a writer become one. Pure.

A writer that is asked to flush often, or whose labels come slowly, leaves many small files, and each has a
price: an entry of the list that writers replace as a whole, a mapping, an open when a run begins.
"""

from __future__ import annotations

from collections.abc import Hashable

__all__ = ["TOGETHER", "SmallFiles"]

TOGETHER = 32
"""Small files of one kind, at most."""


class SmallFiles:
    """The small files that this process has written, by kind.

    Args:
        file_bytes: what a file has at most; a small one has less than half of it.
    """

    def __init__(self, file_bytes: int) -> None:
        self._small_bytes = file_bytes // 2
        # Invariant: those of a kind are fewer than TOGETHER, and together less than half of a file.
        self._files: dict[Hashable, dict[str, int]] = {}

    def add(self, name: str, nbytes: int, kind: Hashable) -> list[str]:
        """Note a file that was written.

        Args:
            kind: of its labels; those of one kind may lie in one file.

        Returns:
            Files that are to become one now; empty if none are. They are not noted any more.
        """
        if nbytes >= self._small_bytes:
            return []
        group = self._files.setdefault(kind, {})
        group[name] = nbytes
        if len(group) < TOGETHER and sum(group.values()) < self._small_bytes:
            return []
        return list(self._files.pop(kind))
