"""File systems that can do less than ext4."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from edldist import files
from edldist.checkpoint.lock import DirectoryLock
from edldist.checkpoint.stores.local import LocalStore
from edldist.config import JobConfig
from edldist.files import lock_file, replace_file, sync
from edldist_launch.record.folder import JobFolder

POOR = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_said", set())


def refuse(monkeypatch: pytest.MonkeyPatch, module: object, name: str, code: int) -> None:
    def call(*args: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(module, name, call)


@pytest.mark.parametrize("code", POOR, ids=errno.errorcode.get)
def test_a_file_system_without_locks_is_named_once_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    """Lustre mounted without flock, some NFS and FUSE mounts; the launcher and a rank alike."""
    refuse(monkeypatch, fcntl, "flock", code)
    job = JobConfig.model_validate(
        {"name": "a", "teachers": [{"model": "a:b"}], "student": {"script": "s.py"}}
    )
    with JobFolder(tmp_path / "out", job) as folder:
        LocalStore(folder.path / "checkpoints").prepare()
    lock = DirectoryLock(tmp_path / ".lock")
    lock.acquire()
    lock.release()
    assert caplog.text.count("has no locks") == 1
    assert os.strerror(code) in caplog.text


def test_a_lock_that_fails_otherwise_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, fcntl, "flock", errno.EIO)
    with (tmp_path / "file").open("w") as stream, pytest.raises(OSError, match="Input/output"):
        lock_file(stream.fileno(), tmp_path)


@pytest.mark.parametrize("code", POOR, ids=errno.errorcode.get)
def test_a_file_system_without_fsync_of_folders_is_named_once_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    refuse(monkeypatch, os, "fsync", code)
    for _ in range(2):
        sync(tmp_path)
    assert caplog.text.count("has no fsync of folders") == 1
    replace_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_disk_that_does_not_take_it_is_an_error_and_leaves_the_former_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_file(tmp_path / "file", b"old")
    refuse(monkeypatch, os, "fsync", errno.ENOSPC)
    with pytest.raises(OSError, match="No space"):
        replace_file(tmp_path / "file", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]
