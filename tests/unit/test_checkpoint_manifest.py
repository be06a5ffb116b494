"""Which errors in reading a checkpoint's files show that it is damaged, and which say nothing about it."""

from __future__ import annotations

import errno
import io
import os
from typing import BinaryIO

import pytest

from edldist.checkpoint.manifest import (
    MARKER,
    DamagedError,
    Manifest,
    UnmarkedError,
    digest,
    read_manifest,
    verify,
)


def manifest(**files: bytes) -> Manifest:
    its = {name: digest(io.BytesIO(data)) for name, data in files.items()}
    return Manifest(step=1, job=None, world_size=1, saved_unix_s=0.0, files=its)


def failing(number: int):
    def open_file(name: str) -> BinaryIO:
        raise OSError(number, os.strerror(number), name)

    return open_file


@pytest.mark.parametrize("on_disk", [True, False])
@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOENT, "weights is missing"),
        (errno.EISDIR, "weights is no file: .*Is a directory"),
        (errno.ENOTDIR, "weights is no file: .*Not a directory"),
    ],
)
def test_a_file_that_is_gone_or_none_is_damage_wherever_it_lies(
    number: int, reason: str, on_disk: bool
) -> None:
    with pytest.raises(DamagedError, match=reason):
        verify(failing(number), manifest(weights=b"x"), on_disk)


def test_what_a_disk_has_lost_is_damage_and_what_an_object_store_says_so_is_not() -> None:
    with pytest.raises(DamagedError, match=r"weights cannot be read: .*Input/output error"):
        verify(failing(errno.EIO), manifest(weights=b"x"), on_disk=True)
    with pytest.raises(OSError, match="Input/output error"):
        verify(failing(errno.EIO), manifest(weights=b"x"), on_disk=False)


@pytest.mark.parametrize("on_disk", [True, False])
def test_an_error_that_says_nothing_of_the_data_passes_as_it_is(on_disk: bool) -> None:
    for read in (lambda opener: verify(opener, manifest(weights=b"x"), on_disk), read_manifest_of(on_disk)):
        with pytest.raises(PermissionError):
            read(failing(errno.EACCES))


def read_manifest_of(on_disk: bool):
    return lambda opener: read_manifest(opener, on_disk)


def test_one_without_a_marker_was_never_committed() -> None:
    with pytest.raises(UnmarkedError, match=f"{MARKER} is missing"):
        read_manifest(failing(errno.ENOENT), on_disk=True)
    files = {MARKER: b"0" * 64}

    def open_file(name: str) -> BinaryIO:
        if name not in files:
            raise FileNotFoundError(name)
        return io.BytesIO(files[name])

    with pytest.raises(DamagedError, match=r"manifest\.json is missing") as caught:
        read_manifest(open_file, on_disk=True)
    assert not isinstance(caught.value, UnmarkedError)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"xx", "weights has 2 bytes instead of 1"), (b"y", "weights was changed: sha256 a1fce4363854")],
)
def test_a_file_that_is_not_what_was_written_is_damage(data: bytes, reason: str) -> None:
    verify(lambda name: io.BytesIO(b"x"), manifest(weights=b"x"), on_disk=True)
    with pytest.raises(DamagedError, match=reason):
        verify(lambda name: io.BytesIO(data), manifest(weights=b"x"), on_disk=True)
