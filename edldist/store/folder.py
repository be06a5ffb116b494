"""The folder of one recipe: files of labels, their list, and what interrupted writers left there.

What a writer does, and what is left if it dies there::

    1 writes .<nonce>.new and syncs it     a draft, which the next writer removes: nobody holds its lock
    2 takes .lock                          the kernel lets go of it
    3 renames it to <digest>.safetensors   a whole file that no list names: the next writer lists it
    4 replaces index.json                  the former list, and that file
    5 lets go of .lock                     nothing

On file systems without locks each writer keeps a list of its own, ``index-<nonce>.json``; readers read all.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from edldist.checkpoint.lock import close_in_children, was_closed
from edldist.checkpoint.manifest import DamagedError
from edldist.files import lacks_locks, lock_file, replace_file, sync
from edldist.store.index_file import INDEX, INDEX_NAME, SHARD_NAME, IndexFile, ShardEntry
from edldist.store.kept_rows import KeptRows
from edldist.store.recipe import Recipe
from edldist.store.shard import Shard
from edldist.store.shard_draft import ShardDraft

__all__ = ["DAMAGED", "RECIPE", "ShelfFolder"]

logger = logging.getLogger(__name__)

RECIPE = "recipe.json"
DAMAGED = "damaged"
LOCK_WAIT_S = 30.0
POLL_S = 0.005
# Between its making and its locking a draft looks like a dead writer's.
SETTLING_S = 5.0
_DRAFT = re.compile(r"\.[0-9a-f]{16}\.new")


class ShelfFolder:
    """The files of one recipe on a file system of this host, shared with other processes.

    A `Place`. Any of the processes may die at any moment.

    Args:
        path: of the folder; it need not be there.
        recipe: what the labels in it are made by.
    """

    look_s = 1.0

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        self.where = str(path)
        self.recipe = recipe
        self.digest = recipe.digest
        self._nonce = secrets.token_hex(8)
        self._index = INDEX

    def prepare(self) -> None:
        os.makedirs(self.path, exist_ok=True)
        with self._locked():
            if not (self.path / RECIPE).exists():
                self._write_recipe()
            self.check_recipe()
            self._tidy()

    def _write_recipe(self) -> None:
        """As a draft of this process's own: without locks the ranks of a job write it at the same time."""
        draft = self.path / f".{self._nonce}.new"
        try:
            draft.write_bytes(self.recipe.encode())
            sync(draft)
            os.replace(draft, self.path / RECIPE)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise

    def check_recipe(self) -> None:
        self.recipe.check_same(Recipe.decode((self.path / RECIPE).read_bytes()), self.where)

    def state(self) -> tuple[object, ...]:
        found: list[object] = []
        for name in self._lists():
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(self.path / name)
                found.append((name, status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(found)

    def entries(self) -> dict[str, ShardEntry]:
        entries: dict[str, ShardEntry] = {}
        for name in self._lists():
            entries.update({entry.file: entry for entry in self._read(name)})
        return entries

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def open(self, name: str) -> Shard:
        return Shard.at(self.path / name, self.digest)

    def add(self, kept: KeptRows) -> ShardEntry:
        draft = ShardDraft(kept, self.digest)
        path = self.path / f".{secrets.token_hex(8)}.new"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        close_in_children(descriptor)
        try:
            lock_file(descriptor, path)  # tells a draft that is being written from one that was left
            with open(descriptor, "wb", closefd=False) as stream:
                entry = draft.write(stream)
            os.fsync(descriptor)
            with self._locked():
                os.rename(path, self.path / draft.name)
                sync(self.path)
                self._update(add=[entry])
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            raise
        finally:
            was_closed(descriptor)
            os.close(descriptor)
        return entry

    def remove(self, names: Iterable[str]) -> None:
        doomed = set(names)
        with self._locked():
            self._update(remove=doomed)
            for name in doomed:
                (self.path / name).unlink(missing_ok=True)

    def set_aside(self, name: str) -> None:
        with self._locked():
            self._update(remove={name})
            (self.path / DAMAGED).mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path / name, self.path / DAMAGED / name)

    def mark_used(self, names: Iterable[str]) -> None:
        now = time.time()
        for name in names:
            with contextlib.suppress(OSError):  # gone, or a read-only disk, of which nothing is evicted
                os.utime(self.path / name, (now, now))

    def close(self) -> None:
        pass

    def _tidy(self) -> None:
        """Remove drafts of writers that died, and list whole files that no list names. Under the lock."""
        for name in os.listdir(self.path):
            if _DRAFT.fullmatch(name) and _is_abandoned(self.path / name):
                logger.info("removing %s, left by a writer that died", self.path / name)
                (self.path / name).unlink(missing_ok=True)
        found = []
        known = self.entries()
        for name in os.listdir(self.path):
            if SHARD_NAME.fullmatch(name) and name not in known:
                # A damaged one stays unlisted, and is met by nobody.
                with contextlib.suppress(DamagedError, FileNotFoundError):
                    found.append(self.open(name).entry(os.stat(self.path / name).st_mtime))
        if found:
            logger.info("listing %d files of labels in %s that no list named", len(found), self.path)
            self._update(add=found)

    def _update(self, add: Iterable[ShardEntry] = (), remove: Iterable[str] = ()) -> None:
        """Change this process's list. Under the lock."""
        gone = set(remove)
        entries = {entry.file: entry for entry in self._read(self._index) if entry.file not in gone}
        entries.update({entry.file: entry for entry in add})
        index = IndexFile(recipe=self.digest, shards=list(entries.values()))
        replace_file(self.path / self._index, index.encode())
        sync(self.path)

    def _read(self, name: str) -> list[ShardEntry]:
        path = self.path / name
        try:
            return IndexFile.decode(path.read_bytes(), self.digest, str(path)).shards
        except FileNotFoundError:
            return []
        except DamagedError as exc:
            logger.warning("%s; the files beside it are looked through instead", exc)
            return []

    def _lists(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.path) if INDEX_NAME.fullmatch(name))
        except FileNotFoundError:
            return []

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among the processes that write here; without locks, alone with an own list.

        Raises:
            OSError: another process holds the lock, and does not let go.
        """
        path = self.path / ".lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        close_in_children(descriptor)
        try:
            deadline = time.monotonic() + LOCK_WAIT_S
            while not lock_file(descriptor, path):
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        None, f"another process has held the lock for {LOCK_WAIT_S:g} s", str(path)
                    )
                time.sleep(POLL_S)
            if lacks_locks(descriptor):
                self._index = f"index-{self._nonce}.json"
            yield
        finally:
            was_closed(descriptor)
            os.close(descriptor)


def _is_abandoned(path: Path) -> bool:
    """Whether nobody writes this draft any more; without locks nobody can tell, so it stays."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    if time.time() - os.fstat(descriptor).st_mtime < SETTLING_S:
        os.close(descriptor)
        return False
    try:
        # Not ``edldist.files``, which takes a file system without locks for one where all is well.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
