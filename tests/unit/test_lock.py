"""The lock of a checkpoint directory, among processes that are forked from one another."""

import os

import pytest

from edldist.checkpoint import lock
from edldist.checkpoint.lock import DirectoryLock
from edldist.errors import CheckpointError


def in_a_child(work) -> str:
    """Run `work` in a forked child; what it returns or raises, as text."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            told = str(work())
        except BaseException as exc:
            told = repr(exc)
        os.write(theirs, told.encode())
        os._exit(0)
    os.close(theirs)
    with open(ours) as stream:
        told = stream.read()
    os.waitpid(child, 0)
    return told


def test_a_forked_child_that_lets_go_closes_no_file_of_its_own_nor_ends_its_parents_lock(
    tmp_path, monkeypatch
):
    """A data-loader worker, or a script's own child, whose copy of a checkpointer is closed."""
    monkeypatch.setattr(lock, "HANDOVER_S", 0.0)
    held = DirectoryLock(tmp_path / ".lock")
    held.acquire()
    number = held._descriptor

    def let_go() -> bool:
        with pytest.raises(OSError):
            os.fstat(number)  # free for others in a child
        taken = os.dup2(os.open(os.devnull, os.O_RDONLY), number)
        held.release()
        os.fstat(taken)
        held.release()
        return True

    assert in_a_child(let_go) == "True"
    with pytest.raises(CheckpointError, match=f"pid {os.getpid()} on"):
        DirectoryLock(tmp_path / ".lock").acquire()
    held.release()
    other = DirectoryLock(tmp_path / ".lock")
    other.acquire()
    other.release()


def test_a_forked_child_takes_a_lock_of_its_own_with_its_copy(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HANDOVER_S", 0.0)
    held = DirectoryLock(tmp_path / ".lock")
    held.acquire()
    held.release()

    def take() -> bool:
        held.acquire()
        held.release()
        return not lock._descriptors

    assert in_a_child(take) == "True"
