"""The files of one recipe on anything that fsspec reaches: s3://, gs://, memory://, ...

Object stores have no locks and no renames, so nobody changes what another process wrote: each writer keeps a
list of its own, ``index-<nonce>.json``, and readers read all of them. A file is uploaded as a whole, then
listed; one that its writer could not list any more is listed by the next.

Files are copied to this host when their labels are first used. Copies are bounded, and the objects are not:
a bucket's own rules say what goes.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

import fsspec

from edldist.checkpoint.manifest import DamagedError
from edldist.checkpoint.scratch import Scratch
from edldist.errors import ConfigError, EdlDistError
from edldist.store.folder import DAMAGED, RECIPE
from edldist.store.index_file import INDEX_NAME, SHARD_NAME, IndexFile, ShardEntry
from edldist.store.kept_rows import KeptRows
from edldist.store.recipe import Recipe
from edldist.store.shard import Shard
from edldist.store.shard_draft import ShardDraft
from edldist.store.shard_header import LENGTH_BYTES, MOST_HEADER_BYTES, ShardHeader

__all__ = ["Bucket", "bucket_recipes"]

logger = logging.getLogger(__name__)

LOOK_S = 30.0
P = ParamSpec("P")
T = TypeVar("T")


def _as_os_errors(method: Callable[P, T]) -> Callable[P, T]:
    """Libraries of object stores raise errors of their own: to callers all of them are a disk that fails."""

    @functools.wraps(method)
    def call(*args: P.args, **options: P.kwargs) -> T:
        try:
            return method(*args, **options)
        except (OSError, DamagedError, EdlDistError):
            raise
        except Exception as exc:
            raise OSError(f"{type(exc).__name__}: {exc}") from exc

    return call


class Bucket:
    """A `Place` below a URL.

    Args:
        url: of the folder of the recipe.
        recipe: what its labels are made by.
        copies_bytes: bound on the copies that this process has of its files.

    Raises:
        ConfigError: fsspec knows no such URL, or lacks what it needs for it.
    """

    look_s = LOOK_S

    def __init__(self, url: str, recipe: Recipe, copies_bytes: int) -> None:
        self.where = url
        self.recipe = recipe
        self.digest = recipe.digest
        self._fs, self._root = _reach(url)
        self._index = f"index-{secrets.token_hex(8)}.json"
        self._own: dict[str, ShardEntry] = {}
        self._copies = _Copies(copies_bytes, self._fetch, self._let_go)
        self._open: WeakValueDictionary[str, Shard] = WeakValueDictionary()

    @_as_os_errors
    def prepare(self) -> None:
        self._fs.makedirs(self._root, exist_ok=True)
        if not self._fs.exists(self._path(RECIPE)):
            self._fs.pipe_file(self._path(RECIPE), self.recipe.encode())
        self.check_recipe()
        entries = self.entries()
        for name in self._names():
            if SHARD_NAME.fullmatch(name) and name not in entries:
                with contextlib.suppress(DamagedError, FileNotFoundError):
                    self._adopt(name)

    @_as_os_errors
    def check_recipe(self) -> None:
        self.recipe.check_same(Recipe.decode(self._fs.cat_file(self._path(RECIPE))), self.where)

    @_as_os_errors
    def state(self) -> tuple[object, ...]:
        return tuple(name for name in self._names() if name != RECIPE)

    @_as_os_errors
    def entries(self) -> dict[str, ShardEntry]:
        entries: dict[str, ShardEntry] = {}
        for name in self._names():
            if INDEX_NAME.fullmatch(name):
                path = self._path(name)
                try:
                    index = IndexFile.decode(self._fs.cat_file(path), self.digest, f"{self.where}/{name}")
                except FileNotFoundError:
                    continue
                except DamagedError as exc:
                    logger.warning("%s; the files beside it are looked through instead", exc)
                    continue
                entries.update({entry.file: entry for entry in index.shards})
        return entries

    @_as_os_errors
    def has(self, name: str) -> bool:
        self._fs.invalidate_cache()
        return bool(self._fs.exists(self._path(name)))

    @_as_os_errors
    def open(self, name: str) -> Shard:
        path = self._path(name)
        nbytes = int(self._fs.size(path))
        head = self._read(path, 0, LENGTH_BYTES)
        size = int.from_bytes(head, "little")
        if len(head) < LENGTH_BYTES or size > min(MOST_HEADER_BYTES, nbytes):
            raise DamagedError(f"{name} is no file of labels, or was cut off")
        head += self._read(path, LENGTH_BYTES, LENGTH_BYTES + size)
        header = ShardHeader(name, head, nbytes, self.digest)
        shard = Shard(
            header,
            path=lambda: self._copies.path(name),
            front=lambda most: self._read(path, header.start, min(nbytes, header.start + most)),
        )
        self._open[name] = shard
        return shard

    @_as_os_errors
    def add(self, kept: KeptRows) -> ShardEntry:
        draft = ShardDraft(kept, self.digest)
        path = self._copies.keep(draft.name, draft.nbytes)
        with path.open("wb") as stream:
            entry = draft.write(stream)
        self._fs.put_file(str(path), self._path(draft.name))
        self._list({**self._own, entry.file: entry})
        return entry

    @_as_os_errors
    def remove(self, names: Iterable[str]) -> None:
        doomed = set(names)
        self._list({name: entry for name, entry in self._own.items() if name not in doomed})
        for name in doomed:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._path(name))

    @_as_os_errors
    def set_aside(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.makedirs(self._path(DAMAGED), exist_ok=True)
            self._fs.mv(self._path(name), self._path(f"{DAMAGED}/{name}"))
        self.remove([name])

    def mark_used(self, names: Iterable[str]) -> None:
        pass

    def close(self) -> None:
        self._copies.close()

    def _adopt(self, name: str) -> None:
        """List a file that its writer could not."""
        self._list({**self._own, name: self.open(name).entry(time.time())})

    def _list(self, entries: dict[str, ShardEntry]) -> None:
        index = IndexFile(recipe=self.digest, shards=list(entries.values()))
        self._fs.pipe_file(self._path(self._index), index.encode())
        self._own = entries

    def _read(self, path: str, first: int, last: int) -> bytes:
        return bytes(self._fs.cat_file(path, first, last))

    def _let_go(self, name: str) -> None:
        shard = self._open.get(name)
        if shard is not None:
            shard.let_go()

    @_as_os_errors
    def _fetch(self, name: str, path: Path) -> None:
        self._fs.get_file(self._path(name), str(path))

    def _names(self) -> list[str]:
        self._fs.invalidate_cache()
        try:
            entries = self._fs.ls(self._root, detail=False)
        except FileNotFoundError:
            return []
        return sorted(str(entry).rstrip("/").rpartition("/")[2] for entry in entries)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


class _Copies:
    """Copies of objects on this host, the least recently used of which goes first. Any thread may use it.

    Args:
        most_bytes: bound on all of them; one may be larger.
        fetch: makes a copy.
        let_go: is told which copy goes.
    """

    def __init__(
        self, most_bytes: int, fetch: Callable[[str, Path], None], let_go: Callable[[str], None]
    ) -> None:
        self._most_bytes = most_bytes
        self._fetch = fetch
        self._let_go = let_go
        self._scratch = Scratch()
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, name: str) -> Path:
        """A copy, made if it is not there."""
        with self._lock:
            path = self._scratch.folder("labels") / name
            there = name in self._sizes and path.exists()
            if there:
                self._sizes.move_to_end(name)
            else:
                self._fetch(name, path)
        return path if there else self.keep(name, path.stat().st_size)

    def keep(self, name: str, nbytes: int) -> Path:
        """Where a copy of that size lies, or is about to."""
        going = []
        with self._lock:
            folder = self._scratch.folder("labels")
            self._sizes[name] = nbytes
            while len(self._sizes) > 1 and sum(self._sizes.values()) > self._most_bytes:
                oldest, _ = self._sizes.popitem(last=False)
                (folder / oldest).unlink(missing_ok=True)
                going.append(oldest)
        for oldest in going:
            self._let_go(oldest)
        return folder / name

    def close(self) -> None:
        with self._lock:
            self._sizes.clear()
            self._scratch.close()


def bucket_recipes(url: str) -> list[tuple[str, bytes]]:
    """The folders of recipes below a URL, with what each says in its ``recipe.json``.

    Raises:
        ConfigError: as for `Bucket`.
        OSError: it cannot be read.
    """
    fs, root = _reach(url)
    found = []
    with contextlib.suppress(FileNotFoundError):
        for folder in sorted(str(entry).rstrip("/") for entry in fs.ls(root, detail=False)):
            name = folder.rpartition("/")[2]
            with contextlib.suppress(FileNotFoundError):
                found.append((name, fs.cat_file(f"{folder}/{RECIPE}")))
    return found


def _reach(url: str) -> tuple[Any, str]:
    try:
        fs, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as exc:
        raise ConfigError(f"the store {url} cannot be used: {exc}") from exc
    return fs, root.rstrip("/")
