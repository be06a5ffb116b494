"""The bound of a store on a disk: which of its files go when there are too many."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from edldist.errors import StoreError
from edldist.store.folder import DAMAGED
from edldist.store.shard_header import SUFFIX

__all__ = ["Room", "StoredFile", "to_go"]

logger = logging.getLogger(__name__)


class StoredFile(NamedTuple):
    """A file of labels.

    Attributes:
        used: when it was last used, in Unix seconds; 0 for one that is damaged.
    """

    used: float
    path: Path
    nbytes: int


def to_go(files: list[StoredFile], more_bytes: int, most_bytes: int) -> list[StoredFile]:
    """Which files go so that so much more fits: damaged ones, then the least recently used. Pure."""
    over = sum(file.nbytes for file in files) + more_bytes - most_bytes
    going = []
    for file in sorted(files):
        if over <= 0:
            break
        going.append(file)
        over -= file.nbytes
    return going


class Room:
    """Keeps the files of all recipes of a store within a bound, whoever wrote them.

    Writers that make room at the same moment may each add a file above it, no more.

    Args:
        recipes: the folder of the recipes' folders.
        most_bytes: the bound.
        evicts: whether sound files may go; else what comes has to fit beside them.
        remove: takes files of one recipe's folder away; None where that folder is nobody's.
    """

    def __init__(
        self, recipes: Path, most_bytes: int, remove: Callable[[Path, list[str]], None], evicts: bool = True
    ) -> None:
        self._recipes = recipes
        self._most_bytes = most_bytes
        self._evicts = evicts
        self._remove = remove
        self.evicted = 0

    def make(self, more_bytes: int) -> None:
        """Let files go until so much more fits.

        Raises:
            OSError: files cannot be removed.
            StoreError: there is no room, and nothing is to go for it.
        """
        by_folder: dict[Path, list[str]] = {}
        files = self._files()
        going = to_go(files, more_bytes, self._most_bytes)
        if not self._evicts and any(file.used for file in going):
            raise StoreError(
                f"it may have {self._most_bytes:,} bytes of files (store.disk), and has "
                f"{sum(file.nbytes for file in files):,}, none of which is to go for others. Raise "
                "store.disk, or remove the folders of recipes that nobody needs"
            )
        for file in going:
            self.evicted += 1
            if file.path.parent.name == DAMAGED:
                file.path.unlink(missing_ok=True)
            else:
                by_folder.setdefault(file.path.parent, []).append(file.path.name)
        for folder, names in by_folder.items():
            logger.info("%d files of labels in %s make room for new ones", len(names), folder)
            self._remove(folder, names)

    def _files(self) -> list[StoredFile]:
        found = []
        for folder in self._recipes.glob("*"):
            for place in (folder, folder / DAMAGED):
                with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as entries:
                    for entry in entries:
                        if entry.name.endswith(SUFFIX):
                            with contextlib.suppress(FileNotFoundError):
                                status = entry.stat()
                                used = 0.0 if place.name == DAMAGED else status.st_mtime
                                found.append(StoredFile(used, Path(entry.path), status.st_size))
        return found
