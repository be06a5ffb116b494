"""From a path or URL to the store behind it."""

from __future__ import annotations

import os
from pathlib import Path

from edldist.checkpoint.stores.local import LocalStore
from edldist.checkpoint.stores.store import Store

__all__ = ["open_store"]


def open_store(directory: str | os.PathLike[str]) -> Store:
    """A `LocalStore` for a path or ``file://`` URL, an object store for any other URL."""
    url = os.fspath(directory)
    scheme, found, rest = url.partition("://")
    if not found:
        return LocalStore(Path(url))
    if scheme in ("file", "local"):
        return LocalStore(Path(rest))
    from edldist.checkpoint.stores.fsspec import FsspecStore

    return FsspecStore(url)
