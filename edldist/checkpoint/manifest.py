"""What a checkpoint consists of, and whether its files are still what was written.

``manifest.json`` lists every file with its size and SHA-256; ``COMMITTED`` holds the SHA-256 of the
manifest. Nothing of a checkpoint is parsed before its hash matched. This finds damage, not malice: whoever
may write to the directory can also write a matching manifest.

Damage is what the data itself shows: a file that is missing, short or changed, or that its disk has lost
(``EIO``). Any other error, as of a network or of permissions, says nothing about the data and passes as it
is.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import msgspec

__all__ = [
    "MANIFEST",
    "MARKER",
    "DamagedError",
    "FileEntry",
    "Manifest",
    "UnmarkedError",
    "digest",
    "read_manifest",
    "verify",
]

MANIFEST = "manifest.json"
MARKER = "COMMITTED"
FORMAT = 1
"""Number of the layout that docs/architecture.md describes; a checkpoint of another one is not read."""
CHUNK_BYTES = 1 << 20

Opener = Callable[[str], BinaryIO]


class DamagedError(Exception):
    """A checkpoint is not what was written; the message is the reason."""


class UnmarkedError(DamagedError):
    """A checkpoint has no marker: it was never committed, or lost it."""


class FileEntry(msgspec.Struct, frozen=True):
    """Size and hash of one file."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """Contents of one checkpoint.

    Attributes:
        step: training step.
        job: name of the job that wrote it, if it had one.
        world_size: number of ranks that wrote it.
        saved_unix_s: when, in Unix seconds; for people.
        files: every file but the manifest and the marker, by name.
    """

    step: int
    job: str | None
    world_size: int
    saved_unix_s: float
    files: dict[str, FileEntry]
    format: int = FORMAT

    def encode(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self))

    @property
    def total_bytes(self) -> int:
        return sum(entry.bytes for entry in self.files.values())


def digest(stream: BinaryIO) -> FileEntry:
    """Read a stream to its end."""
    sha, size = hashlib.sha256(), 0
    while chunk := stream.read(CHUNK_BYTES):
        sha.update(chunk)
        size += len(chunk)
    return FileEntry(size, sha.hexdigest())


def read_manifest(open_file: Opener, on_disk: bool) -> Manifest:
    """Read the manifest of a committed checkpoint, once its hash matched the marker.

    Args:
        on_disk: whether ``EIO`` comes from a medium. Libraries of object stores make it of anything.

    Raises:
        DamagedError: marker or manifest is missing, lost or changed; UnmarkedError if it is the marker
            that is missing.
        Exception: whatever else reading raises.
    """
    with _judged(MARKER, on_disk), open_file(MARKER) as stream:
        marker = stream.read().decode("ascii", "replace").strip()
    with _judged(MANIFEST, on_disk), open_file(MANIFEST) as stream:
        text = stream.read()
    found = hashlib.sha256(text).hexdigest()
    if found != marker:
        raise DamagedError(f"{MANIFEST} has sha256 {found[:12]}..., {MARKER} says {marker[:12]!r}...")
    try:
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as exc:
        raise DamagedError(f"{MANIFEST} cannot be read: {exc}") from exc
    if manifest.format != FORMAT:
        raise DamagedError(f"its format is {manifest.format}; this version of edldist reads format {FORMAT}")
    return manifest


def verify(open_file: Opener, manifest: Manifest, on_disk: bool) -> None:
    """Compare size and hash of every file with the manifest.

    Args:
        on_disk: as for `read_manifest`.

    Raises:
        DamagedError: names the first file that is missing, lost or changed.
        Exception: whatever else reading raises.
    """
    for name, expected in manifest.files.items():
        with _judged(name, on_disk), open_file(name) as stream:
            found = digest(stream)
        if found.bytes != expected.bytes:
            raise DamagedError(f"{name} has {found.bytes} bytes instead of {expected.bytes}")
        if found.sha256 != expected.sha256:
            raise DamagedError(
                f"{name} was changed: sha256 {found.sha256[:12]}... instead of {expected.sha256[:12]}..."
            )


@contextlib.contextmanager
def _judged(name: str, on_disk: bool) -> Iterator[None]:
    """Tell errors in reading a file that show damage from those that do not."""
    try:
        yield
    except FileNotFoundError as exc:
        raise (UnmarkedError if name == MARKER else DamagedError)(f"{name} is missing") from exc
    except (IsADirectoryError, NotADirectoryError) as exc:
        raise DamagedError(f"{name} is no file: {exc}") from exc
    except OSError as exc:
        if not on_disk or exc.errno != errno.EIO:
            raise
        raise DamagedError(f"{name} cannot be read: {exc}") from exc
