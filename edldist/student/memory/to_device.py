"""Batches and labels on their way to the training device, copied on a stream of their own."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from edldist.errors import ConfigError
from edldist.student.memory.structure import mapped

__all__ = [
    "Allocate",
    "Copier",
    "Copies",
    "CudaCopier",
    "DeviceTransfer",
    "HostCopier",
    "LeftBehind",
    "copier_for",
]

logger = logging.getLogger(__name__)

Allocate = Callable[[Sequence[int], torch.dtype], Tensor]
"""Makes an uninitialised host tensor of a shape and a dtype."""


class Copies(NamedTuple):
    """Copies under way.

    Attributes:
        value: the same structure with the device's tensors in it.
        tensors: those of them that were made for it.
        done: what the consumer's stream has to wait for.
    """

    value: Any
    tensors: list[Tensor]
    done: Any


class Copier(Protocol):
    """Brings nested structures to a device. Owned by the trainer's thread; ``allocate`` is called in any."""

    @property
    def ahead(self) -> bool:
        """Whether it pays to begin before the loop asks."""
        ...

    @property
    def allocate(self) -> Allocate | None:
        """Makes host memory from which copies are quick; None where any memory will do."""
        ...

    def begin(self, value: Any) -> Copies:
        """Start to copy every tensor of a structure."""
        ...

    def end(self, copies: Copies) -> Any:
        """The structure on the device, for whoever works on the current stream."""
        ...


def _pinned(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, device="cpu", pin_memory=True)


class HostCopier:
    """Leaves everything on the host, uncopied; ``pinned`` places labels where a script can copy them from."""

    ahead = False

    def __init__(self, pinned: bool = False) -> None:
        self.allocate: Allocate | None = _pinned if pinned else None

    def begin(self, value: Any) -> Copies:
        return Copies(value, [], None)

    def end(self, copies: Copies) -> Any:
        return copies.value


class LeftBehind:
    """Passes on what ``mapped`` does not go into, and says so once of each type that has tensors in it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._known: set[type] = set()

    def __call__(self, value: Any) -> Any:
        kind = type(value)
        if kind not in self._known:
            self._known.add(kind)
            if any(isinstance(part, Tensor) for part in getattr(value, "__dict__", {}).values()):
                logger.warning(
                    "a %s in the batch is passed on as it is, its tensors where they were and not on %s: put "
                    "them into a dict, tuple, list or data class, or move them in the loop",
                    kind.__qualname__,
                    self._device,
                )
        return value


class CudaCopier:
    """Copies to a CUDA device on a stream of its own, so that the copies overlap the loop's kernels.

    Copies from pinned memory alone are asynchronous: tensors that are not pinned yet are staged there first.
    Tensors that are on a device already stay what they are.
    """

    ahead = True

    def __init__(self, device: torch.device, pinned: bool = True) -> None:
        self._device = device
        self._pinned = pinned
        self.allocate: Allocate | None = self._allocate if pinned else None
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._left_behind = LeftBehind(device)
        self._sources: deque[tuple[torch.cuda.Event, list[Tensor]]] = deque()

    def _allocate(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        # Another thread's current device is the first one, where this rank should leave no trace.
        with torch.cuda.device(self._device):
            return _pinned(shape, dtype)

    def begin(self, value: Any) -> Copies:
        while self._sources and self._sources[0][0].query():  # type: ignore[no-untyped-call]
            self._sources.popleft()
        sources: list[Tensor] = []
        tensors: list[Tensor] = []

        def moved(tensor: Tensor) -> Tensor:
            if tensor.device.type != "cpu":
                return tensor
            stageable = self._pinned and tensor.layout == torch.strided
            source = tensor.pin_memory() if stageable and not tensor.is_pinned() else tensor
            made = source.to(self._device, non_blocking=True)
            sources.append(source)
            tensors.append(made)
            return made

        with torch.cuda.stream(self._stream):
            there = mapped(value, moved, self._left_behind)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._stream)
        # What is copied from must not be given back before the copy is over, whoever allocated it.
        self._sources.append((done, sources))
        return Copies(there, tensors, done)

    def end(self, copies: Copies) -> Any:
        current = torch.cuda.current_stream(self._device)
        current.wait_event(copies.done)
        for tensor in copies.tensors:
            # Made on the copying stream: its memory must not be reused there while this one works on it.
            tensor.record_stream(current)
        return copies.value


class DeviceTransfer:
    """Delivered batches in their order, the first of them for the loop, the one behind it being copied.

    Args:
        copier: brings them to the device.
    """

    def __init__(self, copier: Copier) -> None:
        self._copier = copier
        self._items: deque[tuple[Any, Copies]] = deque()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def wants(self) -> bool:
        """Whether a batch that is ready should be put in before the loop asks for it."""
        return self._copier.ahead and not self._items

    def put(self, tag: Any, value: Any) -> None:
        """Append a value, and start to copy it; ``tag`` comes with it as it is."""
        self._items.append((tag, self._copier.begin(value)))

    def take(self) -> tuple[Any, Any]:
        """The oldest (tag, value), on the device."""
        tag, copies = self._items.popleft()
        return tag, self._copier.end(copies)

    def tags(self, start: int = 0) -> list[Any]:
        """The tags of what is under way, oldest first, without so many of them."""
        return [tag for tag, _ in itertools.islice(self._items, start, None)]

    def bring(self, value: Any) -> Any:
        """A value of its own, on the device, past what is under way."""
        return self._copier.end(self._copier.begin(value))

    def clear(self) -> None:
        """Forget what is under way."""
        self._items.clear()


def copier_for(device: str | int | torch.device | None, pin_memory: bool | None) -> Copier:
    """The copier that a loader's options ask for.

    Args:
        device: where the loop wants its tensors; None or the CPU: as they come.
        pin_memory: whether to use pinned host memory; None: where it is of use, for a CUDA device.

    Raises:
        ConfigError: no such device here, or pinned memory without CUDA.
    """
    if pin_memory is not None and not isinstance(pin_memory, bool):
        raise ConfigError(f"pin_memory={pin_memory!r}: use True, False, or None (pinned for a CUDA device)")
    where = _device(device)
    if where.type == "cuda":
        return CudaCopier(where, pinned=pin_memory is not False)
    if pin_memory and not torch.cuda.is_available():
        raise ConfigError("pin_memory=True needs CUDA, which is not available here: use False or None")
    return HostCopier(pinned=bool(pin_memory))


def _device(device: str | int | torch.device | None) -> torch.device:
    allowed = "use None, 'cpu', 'cuda' or 'cuda:N'"
    if device is None:
        return torch.device("cpu")
    if isinstance(device, bool) or not isinstance(device, (str, int, torch.device)):
        raise ConfigError(f"device={device!r}: {allowed}")
    try:
        where = torch.device(f"cuda:{device}" if isinstance(device, int) else device)
    except RuntimeError as exc:
        raise ConfigError(f"device={device!r}: {allowed}") from exc
    if where.type == "cpu":
        return where
    if where.type != "cuda":
        raise ConfigError(f"device={device!r}: tensors are brought to CUDA devices only: {allowed}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count or (where.index or 0) >= count:
        there = f"cuda:0 to cuda:{count - 1}" if count else "no CUDA device"
        raise ConfigError(f"device={device!r}: there is {there} here; {allowed}")
    return torch.device("cuda", torch.cuda.current_device() if where.index is None else where.index)
