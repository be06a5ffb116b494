"""Publishing the weights of a model, version by version, where workers follow them.

A version is a folder as of a checkpoint (docs/architecture.md): the tensors in one safetensors file, a
manifest of sizes and hashes, and the marker that is written last. Nobody sees one that is not whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Mapping
from types import TracebackType

from torch import Tensor, nn

from edldist.checkpoint.manifest import MANIFEST, Manifest, digest
from edldist.checkpoint.stores.opening import open_store
from edldist.checkpoint.tensorfile import TENSORS_FILE, write_tensors
from edldist.environment import JobEnvironment
from edldist.errors import CheckpointError, ConfigError, InputError
from edldist.ranks.placement import placement

__all__ = ["PublishedWeights"]

logger = logging.getLogger(__name__)


class PublishedWeights:
    """A place to which a student publishes weights for its teachers (``--weights follow:PLACE``).

    Versions are numbered from 1 on, whoever publishes after whom: a run that goes on from a checkpoint
    publishes newer ones than it did before. One process publishes to a place at a time; on ranks other than
    0 nothing happens. Owned by one thread.

    Args:
        place: a path, on a file system that all workers see, or a URL of an object store (``fsspec``).
        keep: how many of the newest versions stay; 2 at least, so that one that is being read is not removed.

    Raises:
        ConfigError: ``keep`` is out of range.
        CheckpointError: the place cannot be used, or another process publishes there.
    """

    def __init__(self, place: str | os.PathLike[str], keep: int = 2) -> None:
        if not isinstance(keep, int) or isinstance(keep, bool) or keep < 2:
            raise ConfigError(f"PublishedWeights(keep={keep!r}): use 2 or more")
        self._keep = keep
        self._closed = False
        self._store = open_store(place) if placement().rank == 0 else None
        if self._store is not None:
            self._store.prepare()

    @property
    def newest(self) -> int | None:
        """The number of the newest version there, whoever published it; 0 for none, None on ranks other than
        0.

        Raises:
            CheckpointError: the place cannot be read.
        """
        if self._store is None:
            return None
        try:
            return max((number for number, _ in self._store.checkpoints()), default=0)
        except OSError as exc:
            raise CheckpointError(f"nobody can see what was published to {self._store.url}: {exc}") from exc

    def publish(self, weights: nn.Module | Mapping[str, Tensor]) -> int | None:
        """Write a new version, and return its number once it is there; None on ranks other than 0.

        Args:
            weights: a model, or tensors under the names of its ``state_dict`` (``WeightAverage.weights``).

        Raises:
            ConfigError: there are none, some are no tensors, or this was closed.
            InputError: some values are NaN or infinite.
            CheckpointError: they cannot be written; workers go on with what they have.
        """
        state = weights.state_dict() if isinstance(weights, nn.Module) else weights
        if not isinstance(state, Mapping) or not state:
            raise ConfigError(f"publish({type(weights).__name__}): give a model, or its weights by name")
        if bad := [name for name, value in state.items() if not isinstance(value, Tensor)]:
            raise ConfigError(f"publish: {bad[0]!r} is a {type(state[bad[0]]).__name__}, not a tensor")
        if self._closed:
            raise ConfigError("publish: these PublishedWeights are closed; their place may be another's")
        if self._store is None:
            return None
        for name, value in state.items():
            if value.is_floating_point() and not bool(value.isfinite().all()):
                raise InputError(
                    f"publish: {name!r} has non-finite values, which no worker would load. What trains these "
                    "weights has diverged"
                )
        try:
            return self._write({name: value.detach().cpu().clone() for name, value in state.items()})
        except OSError as exc:
            raise CheckpointError(f"no weights can be published to {self._store.url}: {exc}") from exc

    def _write(self, tensors: Mapping[str, Tensor]) -> int:
        store = self._store
        assert store is not None
        store.guard()
        version = 1 + (self.newest or 0)
        draft = store.begin(version)
        try:
            folder = store.folder(draft)
            write_tensors(folder / TENSORS_FILE, tensors)
            with open(folder / TENSORS_FILE, "rb") as stream:
                files = {TENSORS_FILE: digest(stream)}
            text = Manifest(version, JobEnvironment.read().job, 1, time.time(), files).encode()
            (folder / MANIFEST).write_bytes(text)
            store.seal(draft, [TENSORS_FILE, MANIFEST])
            store.commit(draft, f"{hashlib.sha256(text).hexdigest()}\n".encode())
        except BaseException:
            store.discard(draft)
            raise
        finally:
            store.forget(draft)
        for number, name in store.checkpoints():
            if number <= version - self._keep:
                with contextlib.suppress(FileNotFoundError):
                    store.delete(name)
        logger.info("published version %d of the weights to %s", version, store.url)
        return version

    def close(self) -> None:
        """Let others publish to the place."""
        self._closed = True
        if self._store is not None:
            self._store.release()

    def __enter__(self) -> PublishedWeights:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
