"""``edldist.LabelStore``: labels that teachers made, kept for later epochs, other ranks and other runs."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from types import TracebackType

from edldist.errors import StoreError
from edldist.store.folder import RECIPE, ShelfFolder
from edldist.store.keeper import Keeper
from edldist.store.memory import LEAST_MEMORY_BYTES, Memory
from edldist.store.recipe import Recipe
from edldist.store.shelf import Shelf
from edldist.store.shelf_files import ShelfFiles

__all__ = ["LabelStore"]

logger = logging.getLogger(__name__)

MEMORY_BYTES = 1 << 30
DISK_BYTES = 100 << 30
_RECIPES = "recipes"


class LabelStore:
    """Labels by what made them, in memory and in a folder that other processes and later runs share.

    Args:
        path: of the folder, made if it is not there; None keeps labels in this process's memory alone.
        memory_bytes: bound on the labels in memory, of all shelves together.
        disk_bytes: bound on the files of the folder, those of other processes included.
        read_only: labels are found, and none are kept.

    Raises:
        StoreError: a bound makes no sense, or the path is no folder of labels.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int = DISK_BYTES,
        read_only: bool = False,
    ) -> None:
        if memory_bytes < LEAST_MEMORY_BYTES:
            raise StoreError(
                f"memory of {memory_bytes:,} bytes: a store needs {LEAST_MEMORY_BYTES:,} at least"
            )
        if disk_bytes < LEAST_MEMORY_BYTES:
            raise StoreError(f"a disk of {disk_bytes:,} bytes: a store needs {LEAST_MEMORY_BYTES:,} at least")
        self.path = None if path is None else Path(os.path.abspath(path))
        self.memory_bytes = memory_bytes
        self.disk_bytes = disk_bytes
        self.read_only = read_only
        self._shelves: dict[str, Shelf] = {}
        self._lock = threading.Lock()
        self._keeper = None if self.path is None else Keeper(None, read_only)
        if self.path is not None and self.path.exists() and not self.path.is_dir():
            raise StoreError(f"the store {self.path} is a file: name a folder")

    def recipes(self) -> list[Recipe]:
        """What the labels that are kept were made by."""
        if self.path is None:
            return [shelf.recipe for shelf in self._shelves.values()]
        found = []
        for folder in sorted((self.path / _RECIPES).glob("*")):
            try:
                found.append(Recipe.decode((folder / RECIPE).read_bytes()))
            except (OSError, StoreError) as exc:
                logger.warning("%s is no folder of labels, and left alone: %s", folder, exc)
        return found

    def shelf(self, recipe: Recipe) -> Shelf:
        """The labels of a recipe, to find and to put.

        Raises:
            StoreError: nobody could tell labels of this teacher from those of another, or those that lie
                there are of another.
        """
        digest = recipe.check().digest
        with self._lock:
            if digest not in self._shelves:
                self._shelves[digest] = self._open(recipe, digest)
            return self._shelves[digest]

    def close(self) -> None:
        """Write what is in memory alone, and end the store's thread. Harmless when repeated."""
        with self._lock:
            for shelf in self._shelves.values():
                shelf.close()
            if self._keeper is not None:
                self._keeper.close()

    def __enter__(self) -> LabelStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self, recipe: Recipe, digest: str) -> Shelf:
        share = self.memory_bytes // (len(self._shelves) + 1)
        for other in self._shelves.values():
            other.resize(share)
        lock = threading.RLock()
        files = None
        if self.path is not None:
            folder = ShelfFolder(self.path / _RECIPES / digest, recipe)
            try:
                if self.read_only:
                    folder.check_recipe()
                else:
                    folder.prepare()
                files = ShelfFiles(folder, lock)
                files.refresh()
            except OSError as exc:
                logger.warning("the store %s cannot be used, the job goes on without it: %s", self.path, exc)
                files = None
        keeps = files is not None and not self.read_only
        shelf = Shelf(recipe, Memory(share, files=keeps), files, self._keeper if files else None, lock)
        if files is not None and self._keeper is not None:
            self._keeper.watch(shelf)
        return shelf
