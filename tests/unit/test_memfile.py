"""Only a memory file that cannot shrink, or a storage of torch's, of this user, is ever mapped."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edldist.errors import SharedMemoryError
from edldist.wire.shm.memfile import FileAddress, address_of, check_lendable, make_file, open_file


@pytest.fixture
def opened() -> Iterator[list[int]]:
    """Descriptors to close at the end."""
    fds: list[int] = []
    yield fds
    for fd in fds:
        os.close(fd)


def refused(fd: int, sealed: bool = False) -> str:
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(SharedMemoryError) as caught:
        open_file(address_of(fd), sealed=sealed, writable=False)
    assert not caught.value.gone
    assert sorted(os.listdir("/proc/self/fd")) == before
    return str(caught.value)


def test_a_memory_file_can_be_opened_by_its_address_and_has_its_size(opened: list[int]) -> None:
    opened.append(make_file(10_000))
    os.pwrite(opened[0], b"hello", 7)
    fd, size = open_file(address_of(opened[0]), sealed=True, writable=True)
    opened.append(fd)
    assert size == 10_000 and os.pread(fd, 5, 7) == b"hello"


def test_a_memory_file_can_neither_shrink_nor_grow_and_has_no_name(opened: list[int]) -> None:
    opened.append(make_file(10_000))
    for size in (0, 9_999, 10_001):
        with pytest.raises(PermissionError):
            os.ftruncate(opened[0], size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(opened[0], fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    assert os.fstat(opened[0]).st_nlink == 0


def test_another_process_can_open_it(opened: list[int]) -> None:
    opened.append(make_file(5_000))
    os.pwrite(opened[0], b"hello", 0)
    code = (
        "import os, sys, msgspec; from edldist.wire.shm.memfile import *;"
        "address = msgspec.json.decode(sys.argv[1], type=FileAddress);"
        "fd, size = open_file(address, sealed=True, writable=False); print(size, os.pread(fd, 5, 0))"
    )
    address = msgspec.json.encode(address_of(opened[0])).decode()
    run = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["5000", "b'hello'"]


def test_what_is_not_there_is_gone(opened: list[int]) -> None:
    true = address_of(make_file(5_000))
    os.close(true.fd)
    opened.append(make_file(5_000))  # most likely under the same number
    for address in (
        true,
        msgspec.structs.replace(address_of(opened[0]), inode=1),
        msgspec.structs.replace(address_of(opened[0]), fd=9_999),
        msgspec.structs.replace(address_of(opened[0]), pid=1 << 30),
        FileAddress(-1, -1, 0, 0),
    ):
        with pytest.raises(SharedMemoryError) as caught:
            open_file(address, sealed=True, writable=False)
        assert caught.value.gone


@pytest.mark.parametrize("sealed", [True, False])
def test_files_that_are_no_shared_memory_are_refused(opened: list[int], tmp_path: Path, sealed: bool) -> None:
    (tmp_path / "document").write_bytes(bytes(5_000))
    opened.append(os.open(tmp_path / "document", os.O_RDONLY))
    os.mkfifo(tmp_path / "pipe")
    opened.append(os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK))
    opened.append(os.open(tmp_path, os.O_RDONLY))
    opened.append(os.open("/dev/zero", os.O_RDONLY))
    opened.append(os.eventfd(0))
    with socket.socket() as one:
        opened.append(os.dup(one.fileno()))
    for fd in list(opened):
        assert "memory file" in refused(fd, sealed)


def test_memory_that_may_shrink_is_refused(opened: list[int]) -> None:
    opened.append(os.memfd_create("edldist-page", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC))
    os.ftruncate(opened[0], 5_000)
    assert "neither a sealed memory file" in refused(opened[0])


def test_other_programs_shared_memory_is_refused(opened: list[int]) -> None:
    opened.append(os.memfd_create("database", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC))
    os.ftruncate(opened[0], 5_000)
    fcntl.fcntl(opened[0], fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    path = f"/dev/shm/edldist_test_{os.getpid()}"
    opened.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)
    for fd in opened:
        assert "neither a sealed memory file nor a torch storage" in refused(fd)


def test_torch_storages_are_lent_but_never_written_to_or_taken_for_slabs(opened: list[int]) -> None:
    path = f"/dev/shm/torch_edldist_test_{os.getpid()}"
    opened.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)
    os.ftruncate(opened[0], 5_000)
    check_lendable(opened[0], 5_000)
    with pytest.raises(SharedMemoryError, match="has 5000 bytes, not 5001"):
        check_lendable(opened[0], 5_001)
    fd, _ = open_file(address_of(opened[0]), sealed=False, writable=False)
    opened.append(fd)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 5_000)
    refused(opened[0], sealed=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to own another user's file")
def test_another_users_memory_is_refused_even_by_root(opened: list[int]) -> None:
    opened.append(make_file(5_000))
    os.fchown(opened[0], 65_534, -1)
    assert "belongs to user 65534, not to 0" in refused(opened[0])


def test_a_limit_on_file_sizes_is_an_error_not_a_signal() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "from edldist.wire.shm.memfile import make_file; make_file(4097)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1 and "cannot make a memory file of 4097 bytes" in run.stderr


def test_too_few_descriptors_are_an_error() -> None:
    code = (
        "import os, resource; resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16));"
        "from edldist.wire.shm.memfile import make_file; [make_file(100) for _ in range(20)]"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1 and "cannot make a memory file" in run.stderr
    assert os.strerror(errno.EMFILE) in run.stderr
