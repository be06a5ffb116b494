"""Where the files of a recipe lie: what every kind of place can do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from edldist.store.index_file import ShardEntry
from edldist.store.kept_rows import KeptRows
from edldist.store.recipe import Recipe
from edldist.store.shard import Shard

__all__ = ["Place"]


class Place(Protocol):
    """Files of labels of one recipe, which other processes read and write too."""

    recipe: Recipe

    digest: str
    """Of the recipe."""

    where: str
    """A path or URL, for people."""

    look_s: float
    """Seconds between two looks at what others have written there."""

    def prepare(self) -> None:
        """Make the place, say in it whose it is, and tidy up after writers that died.

        Raises:
            OSError: it cannot be written to.
            StoreError: another recipe lies there.
        """
        ...

    def check_recipe(self) -> None:
        """Make sure that it is this recipe's.

        Raises:
            StoreError: it is another's, says how they differ.
            OSError: nobody says whose it is.
        """
        ...

    def state(self) -> tuple[object, ...]:
        """Equal to what it was where no list has changed."""
        ...

    def entries(self) -> dict[str, ShardEntry]:
        """The listed files by name, oldest first.

        Raises:
            OSError: the place cannot be read.
            StoreError: a list is of another revision.
        """
        ...

    def has(self, name: str) -> bool:
        """Whether a file is there."""
        ...

    def open(self, name: str) -> Shard:
        """A file of labels.

        Raises:
            DamagedError: it is not what was written.
            FileNotFoundError: another process has removed it.
            OSError: it cannot be read.
        """
        ...

    def add(self, kept: KeptRows) -> ShardEntry:
        """Write labels into a file of their own, so that a crash leaves them whole, or not there.

        Raises:
            OSError: the disk did not take it; nothing of it is left.
        """
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove files, and take them off the list; who has them open goes on with them.

        Raises:
            OSError: they cannot be removed.
        """
        ...

    def set_aside(self, name: str) -> None:
        """Move a damaged file where nobody reads it, and take it off the list.

        Raises:
            OSError: it cannot be moved.
        """
        ...

    def mark_used(self, names: Iterable[str]) -> None:
        """Say that files were used just now: those that were not go first. Never raises OSError."""
        ...

    def close(self) -> None:
        """Remove what only this process needed. Harmless when repeated, and what follows begins anew."""
        ...
