"""``edldist.LabelStore``: labels that teachers made, kept for later epochs, other ranks and other runs."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from edldist.errors import StoreError
from edldist.store.audit import Audit, audit
from edldist.store.folder import RECIPE, ShelfFolder
from edldist.store.keeper import Keeper
from edldist.store.memory import LEAST_MEMORY_BYTES, Memory
from edldist.store.place import Place
from edldist.store.recipe import Recipe
from edldist.store.room import Room
from edldist.store.shelf import Shelf
from edldist.store.shelf_files import ShelfFiles

__all__ = ["Contents", "LabelStore"]

logger = logging.getLogger(__name__)

MEMORY_BYTES = 1 << 30
DISK_BYTES = 100 << 30
_RECIPES = "recipes"
_LEAST_FILES = 8
"""A file is no larger than that part of the disk's bound."""


class Contents(NamedTuple):
    """What there is of one recipe.

    Attributes:
        samples: in all files together; one that lies in two of them counts twice.
    """

    recipe: Recipe
    files: int
    samples: int
    bytes: int


class LabelStore:
    """Labels by what made them, in memory and in a folder that other processes and later runs share.

    Args:
        path: of the folder, made if it is not there, or the URL of an object store (``s3://...``); None keeps
            labels in this process's memory alone.
        memory_bytes: bound on the labels in memory, of all shelves together.
        disk_bytes: bound on the files of the folder, those of other processes included; of an object store,
            on the copies of its files that this process has.
        read_only: labels are found, and none are kept.
        evicts: whether the least recently used files go where ``disk_bytes`` are full; else new labels are
            not kept.

    Raises:
        StoreError: a bound makes no sense, or the path is a file.

    Attributes:
        url: the path or URL; empty for one in memory.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        memory_bytes: int = MEMORY_BYTES,
        disk_bytes: int = DISK_BYTES,
        read_only: bool = False,
        evicts: bool = True,
    ) -> None:
        if memory_bytes < LEAST_MEMORY_BYTES:
            raise StoreError(
                f"memory of {memory_bytes:,} bytes: a store needs {LEAST_MEMORY_BYTES:,} at least"
            )
        if disk_bytes < LEAST_MEMORY_BYTES:
            raise StoreError(f"a disk of {disk_bytes:,} bytes: a store needs {LEAST_MEMORY_BYTES:,} at least")
        self.url = "" if path is None else os.fspath(path)
        self._folder = _folder_of(self.url)
        self.memory_bytes = memory_bytes
        self.disk_bytes = disk_bytes
        self.read_only = read_only
        self._shelves: dict[str, Shelf] = {}
        self._lock = threading.Lock()
        self._keeper: Keeper | None = None
        self._room: Room | None = None
        if self.url:
            if self._folder is not None and not read_only:
                self._room = Room(self._folder / _RECIPES, disk_bytes, _remove, evicts)
            self._keeper = Keeper(self._room, read_only)
        # At the end of the interpreter too: a script that never closes its store has kept its labels. Loaders
        # that use it were made later, and end before it.
        self._finalizer = weakref.finalize(self, _close, self._shelves, self._keeper, os.getpid())

    def recipes(self) -> list[Recipe]:
        """What the labels that are kept were made by.

        Raises:
            OSError: an object store cannot be read.
        """
        if not self.url:
            return [shelf.recipe for shelf in self._shelves.values()]
        found = []
        for name, text in self._described():
            try:
                found.append(Recipe.decode(text))
            except StoreError as exc:
                logger.warning("%s/%s/%s is left alone: %s", self.url, _RECIPES, name, exc)
        return found

    def open(self, recipe: str = "") -> Shelf:
        """The labels of a recipe that is there.

        Args:
            recipe: the first digits of its digest; empty where there is only one.

        Raises:
            StoreError: there is none, or are several; names them.
        """
        recipes = {each.digest: each for each in self.recipes()}
        fitting = [each for digest, each in recipes.items() if digest.startswith(recipe)]
        if len(fitting) != 1:
            there = "; ".join(f"{digest[:16]} ({each.fingerprint.model})" for digest, each in recipes.items())
            raise StoreError(
                f"{len(fitting)} recipes of {self.url or 'this store'} begin with {recipe!r}. There are: "
                f"{there or 'none'}"
            )
        return self.shelf(fitting[0])

    def contents(self) -> list[Contents]:
        """What the lists of the store say that there is; no labels are read.

        Raises:
            OSError: they cannot be read.
            StoreError: they are of another revision of edldist.
        """
        found = []
        for recipe in self.recipes() if self.url else ():
            listed = self._place(recipe).entries().values()
            samples, nbytes = sum(each.samples for each in listed), sum(each.bytes for each in listed)
            found.append(Contents(recipe, len(listed), samples, nbytes))
        return found

    def verify(self) -> list[Audit]:
        """Read all files, and compare them with what was written. Changes nothing.

        Raises:
            OSError: they cannot be read.
            StoreError: they are of another revision of edldist.
        """
        return [audit(self._place(recipe)) for recipe in self.recipes()] if self.url else []

    def merge(self, *others: str | os.PathLike[str] | LabelStore) -> int:
        """Take in the labels of other stores, as of other clusters; those that are here stay as they are.

        Damaged files of the others are left out, and said so.

        Returns:
            How many samples came.

        Raises:
            StoreError: the disk does not take them, or another is no store.
            OSError: another store cannot be read.
        """
        came = 0
        for other in others:
            opened = other if isinstance(other, LabelStore) else LabelStore(other, read_only=True)
            if opened._folder is not None and not (opened._folder / _RECIPES).is_dir():
                raise StoreError(f"{opened._folder} is no store of labels: it has no folder {_RECIPES}/")
            with contextlib.nullcontext() if other is opened else opened:
                for recipe in opened.recipes():
                    shelf = self.shelf(recipe)
                    before = shelf.figures()["put"]
                    for kept in opened.shelf(recipe).kept():
                        shelf.take(kept, wait=True)
                    if self.url and not shelf.flush():
                        raise StoreError(f"the labels of {opened.url} were not all kept: {shelf.trouble}")
                    came += shelf.figures()["put"] - before
        return came

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
        """Write what is in memory alone, and end the store's thread. Harmless when repeated; also done when
        nobody refers to the store any more, and at interpreter exit."""
        self._finalizer()

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
        memory = Memory(
            share, self.disk_bytes // _LEAST_FILES, files=self._keeper is not None and not self.read_only
        )
        if self._keeper is not None:
            place = self._place(recipe)
            files = ShelfFiles(place, lock, memory.segment_bytes)
            # What cannot be written to can be read all the same, and be written to later.
            try:
                if not self.read_only:
                    files.prepare()
            except OSError as exc:
                self._keeper.fail(f"{place.where} does not take labels: {exc}")
            try:
                files.refresh()
            except OSError as exc:
                logger.warning("the store %s cannot be read, the job goes on without it: %s", self.url, exc)
        shelf = Shelf(recipe, memory, files, self._keeper, lock)
        if self._keeper is not None:
            self._keeper.watch(shelf)
        return shelf

    def _place(self, recipe: Recipe) -> Place:
        if self._folder is not None:
            return ShelfFolder(self._folder / _RECIPES / recipe.digest, recipe)
        from edldist.store.bucket import Bucket

        return Bucket(f"{self.url.rstrip('/')}/{_RECIPES}/{recipe.digest}", recipe, self.disk_bytes)

    def _described(self) -> list[tuple[str, bytes]]:
        """Names of the recipes' folders, and what is said in each."""
        if self._folder is None:
            from edldist.store.bucket import bucket_recipes

            return bucket_recipes(f"{self.url.rstrip('/')}/{_RECIPES}")
        found = []
        for folder in sorted((self._folder / _RECIPES).glob("*")):
            try:
                found.append((folder.name, (folder / RECIPE).read_bytes()))
            except OSError as exc:
                logger.warning("%s is left alone: %s", folder, exc)
        return found


def _close(shelves: dict[str, Shelf], keeper: Keeper | None, pid: int) -> None:
    """Write what is in memory alone. In a forked child, which has no thread for it: nothing."""
    if os.getpid() != pid:
        return
    for shelf in list(shelves.values()):
        shelf.close()
    if keeper is not None:
        keeper.close()


def _folder_of(url: str) -> Path | None:
    """The folder that a path or URL names; None for an object store.

    Raises:
        StoreError: it is a file.
    """
    scheme, found, rest = url.partition("://")
    if not url or (found and scheme not in ("file", "local")):
        return None
    folder = Path(os.path.abspath(rest if found else url))
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"the store {folder} is a file: name a folder")
    return folder


def _remove(folder: Path, names: list[str]) -> None:
    """Remove files of a recipe's folder, with their entries in its list."""
    with contextlib.suppress(StoreError, FileNotFoundError):  # nobody's: what is there is not ours to remove
        ShelfFolder(folder, Recipe.decode((folder / RECIPE).read_bytes())).remove(names)
