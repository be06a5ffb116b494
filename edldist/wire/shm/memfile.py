"""Files of shared memory without a name, and how another process of this host finds and checks them.

A file is made with ``memfd_create`` and opened by others through ``/proc/PID/fd/N``: it has no entry in
any folder, so the kernel frees it with the last process that has it open or mapped, however that
process ends. What the other side says about a file is checked before a byte of it is touched: a
mapping of the wrong file could be somebody's document, and one that can shrink would end the reader
with SIGBUS.
"""

from __future__ import annotations

import fcntl
import os
import stat

import msgspec

from edldist.errors import SharedMemoryError

__all__ = ["FileAddress", "address_of", "check_lendable", "check_sealed", "is_open", "make_file", "open_file"]

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_MEMFD = "/memfd:edldist"
# PyTorch's shared storages, also those that are unlinked. They cannot be sealed; torch gives each its
# size when it makes it, and never truncates one.
_TORCH = "/dev/shm/torch_"


class FileAddress(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a process of this host can open a file of shared memory.

    ``fd`` is a descriptor of process ``pid``. It may be closed and used anew, so ``device`` and
    ``inode`` say which file is meant.
    """

    pid: int
    fd: int
    device: int
    inode: int


def address_of(fd: int) -> FileAddress:
    """The address of an open file of this process."""
    status = os.fstat(fd)
    return FileAddress(os.getpid(), fd, status.st_dev, status.st_ino)


def is_open(address: FileAddress) -> bool:
    """Whether the process that has this file lives and has not closed it."""
    try:
        return os.stat(f"/proc/{address.pid}/fd/{address.fd}").st_ino == address.inode
    except OSError:
        return False


def make_file(size: int, name: str = "") -> int:
    """A new memory file of ``size`` bytes, all of them backed, that nobody can shrink or grow.

    Returns:
        Its descriptor, which the caller owns.

    Raises:
        SharedMemoryError: the system has no memory or descriptor left for it, or allows no such file.
    """
    try:
        fd = os.memfd_create(f"edldist{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except (OSError, AttributeError) as exc:
        raise SharedMemoryError(f"cannot make a memory file: {exc}") from exc
    try:
        os.ftruncate(fd, size)
        # Without this a write into the mapping could be the first to find that there is no memory.
        os.posix_fallocate(fd, 0, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError as exc:
        os.close(fd)
        raise SharedMemoryError(f"cannot make a memory file of {size} bytes: {exc}") from exc
    return fd


def open_file(address: FileAddress, *, sealed: bool, writable: bool) -> tuple[int, int]:
    """Open another process's memory file and check that it may be mapped.

    Args:
        sealed: accept only files of ``make_file``; otherwise also torch's.

    Returns:
        A descriptor, which the caller owns, and the file's size in bytes.

    Raises:
        SharedMemoryError: ``gone`` if no such file is there (any more), otherwise this process may
            not open it or it is none that can be mapped safely.
    """
    path = f"/proc/{address.pid}/fd/{address.fd}"
    # Looked at before it is opened: opening a device or a pipe may do something.
    probe = _open(path, os.O_PATH)
    try:
        status = os.fstat(probe)
        if (status.st_dev, status.st_ino) != (address.device, address.inode):
            raise SharedMemoryError(f"{path} is another file by now", gone=True)
        if not stat.S_ISREG(status.st_mode):
            raise SharedMemoryError(f"{path} is no memory file")
        if status.st_uid != os.geteuid():
            raise SharedMemoryError(f"{path} belongs to user {status.st_uid}, not to {os.geteuid()}")
        own = f"/proc/self/fd/{probe}"
        target = os.readlink(own)
        fd = _open(own, os.O_RDWR if writable else os.O_RDONLY)
    finally:
        os.close(probe)
    try:
        _check_kind(fd, path, target, sealed)
        return fd, status.st_size
    except BaseException:
        os.close(fd)
        raise


def check_lendable(fd: int, size: int) -> None:
    """Check that peers would map a file of this process that is not one of ``make_file``.

    Raises:
        SharedMemoryError: it has fewer than ``size`` bytes, or is no storage of torch's.
    """
    path = f"/proc/self/fd/{fd}"
    if os.fstat(fd).st_size < size:
        raise SharedMemoryError(f"{path} has {os.fstat(fd).st_size} bytes, not {size}")
    _check_kind(fd, path, os.readlink(path), sealed=False)


def check_sealed(fd: int) -> None:
    """Check that a file of this process is one of ``make_file``.

    Raises:
        SharedMemoryError: it is not.
    """
    path = f"/proc/self/fd/{fd}"
    _check_kind(fd, path, os.readlink(path), sealed=True)


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError) as exc:
        raise SharedMemoryError(f"{path} is not there", gone=True) from exc
    except OSError as exc:
        raise SharedMemoryError(f"cannot open {path}: {exc.strerror}") from exc


def _check_kind(fd: int, path: str, target: str, sealed: bool) -> None:
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as exc:  # only files of memory know what seals are
        raise SharedMemoryError(f"{path} ({target}) is no memory file") from exc
    ours = target.startswith(_MEMFD) and seals & fcntl.F_SEAL_SHRINK
    if not ours and (sealed or not target.startswith(_TORCH)):
        raise SharedMemoryError(f"{path} ({target}) is neither a sealed memory file nor a torch storage")
