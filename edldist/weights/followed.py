"""Following weights that somebody publishes: the newest version that is whole and fits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from edldist.checkpoint.manifest import DamagedError, UnmarkedError, read_manifest, verify
from edldist.checkpoint.stores.opening import open_store
from edldist.checkpoint.tensorfile import TENSORS_FILE, keys_of, read_tensors
from edldist.errors import ModelError
from edldist.observe.repeats import Repeats

__all__ = ["FollowedWeights", "Follower", "Version"]

logger = logging.getLogger(__name__)

LOOK_S = 1.0
_NAMED = 4


class Version(NamedTuple):
    """A version that was published: its number, and its tensors on the host."""

    number: int
    tensors: dict[str, Tensor]


class FollowedWeights:
    """Reads versions as they are published. Used by one thread at a time.

    A version that is damaged, or that does not fit, is refused once and for all, and said once.

    Args:
        place: a path or URL (``PublishedWeights``).
        like: what the model has: tensors by name, of the shapes and dtypes that are wanted.
    """

    def __init__(self, place: str, like: Mapping[str, Tensor]) -> None:
        self._store = open_store(place)
        self._like = {name: torch.empty_like(value, device="meta") for name, value in like.items()}
        self._refused: set[str] = set()
        self._unreadable = Repeats(logger)

    def newer_than(self, number: int) -> Version | None:
        """The newest sound version above a number, if there is one."""
        try:
            for version, name in self._store.checkpoints():
                if version <= number:
                    break
                if name not in self._refused and (tensors := self._read(name)) is not None:
                    return Version(version, tensors)
        except FileNotFoundError:
            return None  # nothing was published yet, or a version was removed meanwhile
        except OSError as exc:
            self._unreadable.warn(f"weights at {self._store.url} cannot be read: {exc}. Going on without")
        return None

    def _read(self, name: str) -> dict[str, Tensor] | None:
        store = self._store
        try:
            manifest = read_manifest(lambda file: store.open(name, file), store.on_disk)
            verify(lambda file: store.open(name, file), manifest, store.on_disk)
            with store.fetch(name, manifest.files) as folder:
                if reasons := self._misfits(keys_of(folder / TENSORS_FILE)):
                    raise DamagedError("; ".join(reasons))
                tensors = {key: torch.empty_like(value, device="cpu") for key, value in self._like.items()}
                _check_shapes(folder / TENSORS_FILE, tensors)
                read_tensors(folder / TENSORS_FILE, tensors)
            if bad := [k for k, v in tensors.items() if v.is_floating_point() and not v.isfinite().all()]:
                raise DamagedError(f"{bad[0]} holds NaN or infinite values")
            return tensors
        except UnmarkedError:
            if store.lists_drafts or not self._is_there(name):
                return None  # it is being written, or was removed
            self._refuse(name, "it has no marker")
        except DamagedError as exc:
            if self._is_there(name):
                self._refuse(name, str(exc))
        return None

    def _is_there(self, name: str) -> bool:
        return any(name == other for _, other in self._store.checkpoints())

    def _refuse(self, name: str, reason: str) -> None:
        self._refused.add(name)
        logger.warning(
            "weights %s at %s are refused: %s. Going on with those that are loaded",
            name,
            self._store.url,
            reason,
        )

    def _misfits(self, keys: list[str]) -> list[str]:
        missing, more = sorted(self._like.keys() - set(keys)), sorted(set(keys) - self._like.keys())
        return [
            *([f"they lack {', '.join(missing[:_NAMED])}"] if missing else []),
            *([f"they have {', '.join(more[:_NAMED])}, which the model has not"] if more else []),
        ]

    def close(self) -> None:
        """Nothing more is read."""
        self._store.release()
        self._unreadable.end()


def _check_shapes(path: object, wanted: Mapping[str, Tensor]) -> None:
    """Raises:
    DamagedError: a tensor has another shape or dtype than the model's.
    """
    with safe_open(str(path), "pt") as file:
        for key, tensor in wanted.items():
            saved = file.get_tensor(key)
            if saved.shape != tensor.shape or saved.dtype != tensor.dtype:
                raise DamagedError(
                    f"{key} is {saved.dtype}{list(saved.shape)}, and the model's {tensor.dtype}"
                    f"{list(tensor.shape)}"
                )


class Follower:
    """Looks for newer versions in a thread of its own, and keeps the newest until it is taken.

    Args:
        place, like: as of ``FollowedWeights``.
        look_s: how long it waits between two looks; None: ``LOOK_S``.
    """

    def __init__(self, place: str, like: Mapping[str, Tensor], look_s: float | None = None) -> None:
        self._place = place
        self._weights = FollowedWeights(place, like)
        self._look_s = LOOK_S if look_s is None else look_s
        self._lock = threading.Lock()
        self._found: Version | None = None
        self._number = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="edldist-weights", daemon=True)

    def first(self, patience_s: float) -> Version:
        """Wait for a version, and follow from it on.

        Raises:
            ModelError: none was published in time.
        """
        looks = max(1, round(patience_s / self._look_s))
        for look in range(looks):
            if look == 1:
                logger.info("waiting for weights at %s", self._place)
            if (found := self._weights.newer_than(0)) is not None:
                self._number = found.number
                self._thread.start()
                return found
            self._ended.wait(self._look_s)
        raise ModelError(
            f"no weights that fit were published at {self._place} for {patience_s:g} s "
            "(--connect-timeout-s): publish a first version when the student starts"
        )

    def take(self) -> Version | None:
        """The newest version that was found and not taken yet."""
        with self._lock:
            found, self._found = self._found, None
            return found

    def close(self) -> None:
        """Look no more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._weights.close()

    def _follow(self) -> None:
        while not self._ended.wait(self._look_s):
            found = self._weights.newer_than(self._number)
            if found is not None:
                self._number = found.number
                with self._lock:
                    self._found = found
