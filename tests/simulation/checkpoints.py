"""Where the model survives the death of its group: real checkpoints, on a disk that fails when it is told to.

The disk is a folder of this machine. Python tells an audit hook of every file that is opened, and of every
folder that is made, renamed or removed, before it happens; so an error of the disk, or the death of the
process, can be put before any of them.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from edldist.checkpoint.checkpointer import Checkpointer
from edldist.errors import CheckpointError
from tests.simulation.progress import Progress

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Checkpoints"]

_EVENTS = frozenset(
    ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "shutil.rmtree")
)
_ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS)
_OPERATIONS = 24
"""Of a save, about: the fault is put before one of them."""
_MEMORY = "/dev/shm"


class _Death(BaseException):
    """The process of the rank is no more: nothing that it would still do happens."""


class _Disk:
    """Counts what one process does to the files under a folder, and lets it fail."""

    current: _Disk | None = None
    hooked = False

    def __init__(self, root: str, fail_at: int | None, error: int | None) -> None:
        self.root = root
        self.fail_at = fail_at
        self.error = error
        self.done = 0
        self.died = False
        self.failed = False

    @contextmanager
    def used(self) -> Iterator[None]:
        """What happens inside happens to this disk."""
        if not _Disk.hooked:
            sys.addaudithook(_audit)
            _Disk.hooked = True
        hook, threading.excepthook = threading.excepthook, _say_nothing
        _Disk.current = self
        try:
            yield
        finally:
            _Disk.current = None
            threading.excepthook = hook

    def operation(self, event: str, path: Any) -> None:
        if not (isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.root)):
            return
        if self.died:
            raise _Death
        self.done += 1
        if self.done == self.fail_at:
            self.failed = True
            if self.error is None:
                self.died = True
                raise _Death
            raise OSError(self.error, os.strerror(self.error), os.fspath(path))


def _audit(event: str, arguments: tuple[Any, ...], disks: type[_Disk] = _Disk) -> None:
    disk = disks.current  # an own reference: a hook outlives the names of its module
    if disk is not None and event in _EVENTS and arguments:
        disk.operation(event, arguments[0])


def _say_nothing(arguments: Any) -> None:
    """A thread that dies with its process says nothing."""


class _Model:
    """What a checkpoint holds of a model: its progress, and weights that follow from it."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress = progress or Progress()

    def state_dict(self) -> dict[str, Any]:
        return self.progress._asdict() | {"weights": _weights(self.progress)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        weights = state.pop("weights")
        self.progress = Progress(**state)
        if not torch.equal(weights, _weights(self.progress)):
            raise ValueError(f"the weights {weights} are not those of {self.progress}")


def _weights(progress: Progress) -> torch.Tensor:
    return torch.tensor(list(progress), dtype=torch.float64)


class Checkpoints:
    """The checkpoints of one job."""

    def __init__(self, world: World) -> None:
        self._world = world
        base = _MEMORY if os.path.isdir(_MEMORY) else None
        self._folder = Path(tempfile.mkdtemp(prefix="edldist-simulation-", dir=base))
        # Some worlds are only asked for their plan, and never run.
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._root = str(self._folder / "checkpoints")
        self._checkpointer: Checkpointer | None = None
        self._fault: tuple[int, int | None] | None = None
        self._durable = Progress()
        # Invariant: what a restore may find: what is durable, or was being saved when something went wrong.
        self._possible: set[Progress] = set()

    def fail_next(self, operation: int, *, crash: bool) -> bool:
        """The next save fails, or is cut off, before one of its operations; False if that is so already."""
        if self._fault is not None:
            return False
        error = None if crash else _ERRORS[operation % len(_ERRORS)]
        self._fault = (1 + operation // len(_ERRORS) % _OPERATIONS, error)
        return True

    def heal(self) -> None:
        self._fault = None

    def save(self, progress: Progress) -> bool:
        """Save; False if the process died of it."""
        checkpointer = self._checkpointer
        assert checkpointer is not None
        fault, self._fault = self._fault, None
        disk = _Disk(self._root, *(fault or (None, None)))
        failures = checkpointer.failures
        self._possible.add(progress)
        with disk.used():
            checkpointer.save(progress.steps, {"model": _Model(progress)}, wait=True)
        if disk.died:
            self._world.note(f"it died before operation {disk.done} of the save of step {progress.steps}")
            return False
        if checkpointer.failures == failures:
            self._durable = progress
            self._possible = {progress}
        elif not disk.failed:
            self._world.violate(f"a save failed for no reason: {checkpointer.last_error}")
        else:
            self._world.note(f"the save of step {progress.steps} failed at its operation {disk.fail_at}")
        return True

    def restore(self) -> Progress | None:
        """What a new group finds, if it finds anything: a checkpoint that was whole."""
        self._leave()
        self._checkpointer = Checkpointer(self._root, keep=2)
        model = _Model()
        try:
            step = self._checkpointer.restore({"model": model})
        except CheckpointError as error:
            self._world.violate(f"the checkpoints cannot be restored: {error}", error)
            return None
        found = model.progress
        if step is None:
            if self._durable != Progress():
                self._world.violate(f"no checkpoint is found, {self._durable} was saved")
            return None
        if found != self._durable and found not in self._possible:
            self._world.violate(f"restored {found}, durable was {self._durable}")
        self._durable = found
        self._possible = {found}
        return found

    def _leave(self) -> None:
        if self._checkpointer is not None:
            self._checkpointer._leave()
            self._checkpointer = None

    def close(self) -> None:
        """Leave nothing behind."""
        self._leave()
        self._remove()
