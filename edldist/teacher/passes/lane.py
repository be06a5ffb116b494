"""How a forward pass reaches its device and its labels come back: straight, or overlapped on streams.

A lane knows nothing of tasks. ``HostLane`` computes when it is asked to, on any device.
``CudaLane`` only enqueues: copy-in, compute and copy-out run on a stream each, tied by events, so
that the copies of one pass overlap the compute of another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from edldist.errors import ModelError
from edldist.teacher.passes.forward import Computed
from edldist.teacher.passes.kept_inputs import KeptInputs
from edldist.teacher.passes.stopwatch import Stopwatch
from edldist.tracing.kinds import Kind

__all__ = ["Compute", "CudaLane", "Flight", "HostLane", "InputsLostError", "Lane", "Parts", "lane_for"]

_POLL_S = 0.0005

Compute = Callable[[Mapping[str, Tensor]], Computed]
Parts = Sequence[Mapping[str, Tensor]]

_LOST = (
    "the model changed its inputs in place in a pass that then failed, so this worker cannot do it again; "
    "from now on it gives the model copies."
)


class InputsLostError(ModelError):
    """A pass went wrong and cannot be done again: the model has written to its inputs."""


class Flight(Protocol):
    """A forward pass that was launched."""

    @property
    def computed(self) -> Computed:
        """What the pass makes, on the device."""
        ...

    def done(self) -> bool:
        """Whether the labels are here. Raises what went wrong on the device."""
        ...

    def wait(self) -> None:
        """Block until ``done``."""
        ...

    def labels(self) -> tuple[dict[str, Tensor], bool, float]:
        """Packed labels on the host, whether they are suspect, and the seconds of compute. Once done."""
        ...


class Lane(Protocol):
    """Launches forward passes. Owned by the compute thread."""

    @property
    def depth(self) -> int:
        """Passes that may be in flight at once."""
        ...

    @property
    def poll_s(self) -> float:
        """How long to wait between two looks at a flight, where there is something else to look out for."""
        ...

    def launch(self, parts: Parts, compute: Compute) -> Flight:
        """Begin a pass.

        Args:
            parts: host tensors by name, samples first; parts of one batch, in order.
            compute: from inputs on the device to labels on the device.

        Raises:
            Exception: whatever ``compute`` raises, or no memory for the copies.
        """
        ...

    def recover(self) -> bool:
        """After an error: let go of what is cached. False if the device is of no use any more."""
        ...

    def close(self) -> None:
        """No pass is wanted any more."""
        ...


def lane_for(device: torch.device, watch: Stopwatch | None = None) -> Lane:
    """The lane of a device; ``watch`` is told when copies begin and end."""
    return CudaLane(device, watch) if device.type == "cuda" else HostLane(watch)


class _Landed:
    """A pass that was over when it was launched."""

    def __init__(self, computed: Computed, labels: dict[str, Tensor], suspect: bool, seconds: float) -> None:
        self.computed = computed
        self._labels = (labels, suspect, seconds)

    def done(self) -> bool:
        return True

    def wait(self) -> None:
        return

    def labels(self) -> tuple[dict[str, Tensor], bool, float]:
        return self._labels


class HostLane:
    """Straight through: ``launch`` returns when the labels are on the host.

    A pass that failed is done again from the same memory. A model that changes its inputs in place would
    then label what it left there, so it gets copies once it was seen to do so; so does one that goes on
    referring to them, as their memory may be filled with other samples (``kept_inputs``).
    """

    depth = 1
    poll_s = _POLL_S

    _copies = False

    def __init__(self, watch: Stopwatch | None = None) -> None:
        self._watch = watch or Stopwatch()

    def launch(self, parts: Parts, compute: Compute) -> Flight:
        begun = time.perf_counter()
        ours = len(parts) > 1 or self._copies
        with self._watch.stage(Kind.COPY_IN):
            if len(parts) > 1:
                inputs = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            else:
                inputs = {name: tensor.clone() if ours else tensor for name, tensor in parts[0].items()}
        before = {name: tensor._version for name, tensor in inputs.items() if not tensor.is_inference()}
        kept = None if ours else KeptInputs(inputs)
        try:
            computed = compute(inputs)
        except Exception as exc:
            if not ours and self._changed(inputs, before):
                raise InputsLostError(f"{_LOST} It said:\n{exc}") from exc
            raise
        suspect = computed.finite is not None and not bool(computed.finite)
        if not ours and self._changed(inputs, before) and suspect:
            raise InputsLostError(f"{_LOST} A label was not finite, or none that the codec can hold")
        with self._watch.stage(Kind.COPY_OUT):
            labels = {name: tensor.cpu() for name, tensor in computed.packed.items()}
        if kept is not None and kept.by_model(inputs, computed):
            self._copies = True
        return _Landed(computed, labels, suspect, time.perf_counter() - begun)

    def recover(self) -> bool:
        return True

    def close(self) -> None:
        return

    def _changed(self, inputs: Mapping[str, Tensor], before: Mapping[str, int]) -> bool:
        """Whether the model wrote to its inputs. Torch counts that; what numpy writes goes unnoticed."""
        changed = any(inputs[name]._version != version for name, version in before.items())
        self._copies = self._copies or changed
        return changed


class _CudaFlight:
    """Holds every tensor that a stream still reads or writes, until the labels are here."""

    def __init__(
        self,
        computed: Computed,
        placed: Mapping[str, Tensor],
        labels: dict[str, Tensor],
        finite: Tensor | None,
        begun: torch.cuda.Event,
        ended: torch.cuda.Event,
        landed: torch.cuda.Event,
    ) -> None:
        self.computed = computed
        self._placed = placed
        self._labels = labels
        self._finite = finite
        self._begun, self._ended, self._landed = begun, ended, landed

    def done(self) -> bool:
        return bool(self._landed.query())  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        self._landed.synchronize()

    def labels(self) -> tuple[dict[str, Tensor], bool, float]:
        suspect = self._finite is not None and not self._finite
        return self._labels, suspect, self._begun.elapsed_time(self._ended) / 1e3


class CudaLane:
    """Three streams, two passes in flight.

    Pinned buffers come from torch's caching host allocator, which hands a freed one out again, and
    not before the copies from it are over. That matters for labels: their memory is free only when
    the socket has sent it.
    """

    depth = 2
    poll_s = _POLL_S

    def __init__(self, device: torch.device, watch: Stopwatch | None = None) -> None:
        self._device = device
        self._watch = watch or Stopwatch()
        self._copy_in = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._compute = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._copy_out = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        torch.cuda.synchronize(device)  # the weights were copied on another stream

    def launch(self, parts: Parts, compute: Compute) -> Flight:
        begun = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        ended = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        landed = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        with torch.cuda.device(self._device):
            with torch.cuda.stream(self._copy_in), self._watch.stage(Kind.COPY_IN):
                placed = {
                    name: _pinned([part[name] for part in parts]).to(self._device, non_blocking=True)
                    for name in parts[0]
                }
                arrived = self._copy_in.record_event()
            with torch.cuda.stream(self._compute):
                self._compute.wait_event(arrived)
                begun.record(self._compute)
                computed = compute(placed)
                ended.record(self._compute)
            with torch.cuda.stream(self._copy_out):
                self._copy_out.wait_event(ended)
                with self._watch.stage(Kind.COPY_OUT):
                    labels = {name: _to_host(tensor) for name, tensor in computed.packed.items()}
                    finite = None if computed.finite is None else _to_host(computed.finite)
                landed.record(self._copy_out)
        return _CudaFlight(computed, placed, labels, finite, begun, ended, landed)

    def recover(self) -> bool:
        # What the failed pass enqueued still reads memory that is already free for others.
        try:
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()
        except RuntimeError:
            return False
        return True

    def close(self) -> None:
        return


def _pinned(tensors: Sequence[Tensor]) -> Tensor:
    """One batch, copied to pinned memory."""
    first = tensors[0]
    shape = [sum(tensor.shape[0] for tensor in tensors), *first.shape[1:]]
    staged = torch.empty(shape, dtype=first.dtype, device="cpu", pin_memory=True)
    return torch.cat(list(tensors), out=staged) if len(tensors) > 1 else staged.copy_(first)


def _to_host(tensor: Tensor) -> Tensor:
    if tensor.device.type == "cpu":
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
