"""Teachers that cost nothing, or a given time, so that the path of the labels is what is measured.

What they answer is set by ``EDLDIST_BENCH_LABEL``: the labels of one sample, as ``dtype:AxB``, or
several of them as ``name=dtype:AxB,name=dtype:C``.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = [
    "TASK_SAMPLES",
    "convolving",
    "copying",
    "label_bytes",
    "noop",
    "paced",
    "parse_labels",
    "uncounted",
]

Labels = Tensor | dict[str, Tensor]

TASK_SAMPLES = 32
"""``paced`` takes its time for this many samples."""


def parse_labels(text: str) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """Output name -> dtype and shape of one sample's labels; a lone one without a name is ``logits``."""
    outputs = {}
    for part in text.split(","):
        named, _, sizes = part.partition(":")
        name, _, dtype = named.rpartition("=")
        outputs[name or "logits"] = (getattr(torch, dtype), tuple(int(size) for size in sizes.split("x")))
    return outputs


def label_bytes(text: str) -> int:
    """Bytes of one sample's labels."""
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in parse_labels(text).values())


class _Prepared:
    """Labels made once, for as many samples as were ever asked for: read only, as fresh ones would be."""

    def __init__(self) -> None:
        self._outputs = parse_labels(os.environ["EDLDIST_BENCH_LABEL"])
        self._samples = 0
        self._labels: dict[str, Tensor] = {}

    def __call__(self, samples: int) -> Labels:
        if samples > self._samples:
            self._samples = samples
            with torch.inference_mode(False):  # where torch counts writes: a worker copies what may change
                self._labels = {
                    name: torch.ones(samples, *shape, dtype=dtype)
                    for name, (dtype, shape) in self._outputs.items()
                }
        cut = {name: labels[:samples] for name, labels in self._labels.items()}
        return cut["logits"] if list(cut) == ["logits"] else cut


def noop() -> Callable[[Tensor], Labels]:
    """Never looks at its inputs."""
    prepared = _Prepared()
    return lambda x: prepared(x.shape[0])


def uncounted() -> Callable[[Tensor], Labels]:
    """The same in a process that counts nothing for metrics."""
    from edldist_benchmarks.uncounted import stop_counting

    stop_counting()
    return noop()


def copying() -> Callable[[Tensor], Labels]:
    """Copies each input once into one buffer, as a device's copy engine would."""
    prepared = _Prepared()
    buffer = torch.empty(0, dtype=torch.uint8)

    def label(x: Tensor) -> Labels:
        nonlocal buffer
        if buffer.shape[1:] != x.shape[1:] or buffer.dtype != x.dtype or len(buffer) < len(x):
            buffer = torch.empty_like(x)
        buffer[: len(x)].copy_(x)
        return prepared(x.shape[0])

    return label


def convolving() -> nn.Module:
    """Computes: 64 images of 3x32x32 keep one core busy for some tens of milliseconds."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def paced() -> Callable[[Tensor], Labels]:
    """Sleeps ``EDLDIST_BENCH_PASS_S`` for each 32 samples, as a device of that speed would."""
    prepared = _Prepared()
    sample_s = float(os.environ["EDLDIST_BENCH_PASS_S"]) / TASK_SAMPLES

    def label(x: Tensor) -> Labels:
        time.sleep(sample_s * x.shape[0])
        return prepared(x.shape[0])

    return label
