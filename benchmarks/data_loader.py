"""Images from a data set's samples to the labelled batch, stacked by torch and by ``edldist.collate``.

A data loader with one worker stacks what a teacher worker on this host copies once. No stage computes
anything else, so that the memory of the batches is what is measured.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

import edldist
from edldist_benchmarks.figures import Figure, Result, Settings, interleave, rate
from edldist_benchmarks.job import open_job
from edldist_benchmarks.label_path import LARGE_SHARED

__all__ = ["Images", "measure_collating"]

_DIFFERENT = 1024  # 154 MB: more than a cache holds
_ENDLESS = 1 << 30


class Images(Dataset[Tensor]):
    """Ones in memory, as if they had been decoded."""

    def __init__(self) -> None:
        self._images = torch.ones(_DIFFERENT, *LARGE_SHARED.sample_shape, dtype=LARGE_SHARED.input_dtype)

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> Tensor:
        return self._images[index % _DIFFERENT]


@contextlib.contextmanager
def _open_path(images: Images, collate: Callable[[Any], Any]) -> Iterator[edldist.DistillLoader]:
    data = DataLoader(images, LARGE_SHARED.batch, num_workers=1, collate_fn=collate)
    with open_job(shared=True) as job:
        job.teacher(LARGE_SHARED.model, LARGE_SHARED.worker_batch, LARGE_SHARED.labels)
        yield job.loader(data, workers=1, high_watermark=LARGE_SHARED.high_watermark, checkpointed=False)


def measure_collating(settings: Settings) -> Result:
    """128x3x224x224 uint8, through a data loader's worker, the rank and a worker that copies each batch."""
    images, size = Images(), LARGE_SHARED.batch
    kept = torch.empty(size, *LARGE_SHARED.sample_shape, dtype=LARGE_SHARED.input_dtype)
    places = itertools.cycle(range(0, _DIFFERENT, size))

    def stack() -> None:
        first = next(places)
        torch.stack([images[first + number] for number in range(size)], out=kept)

    with contextlib.ExitStack() as opened:
        paths: dict[str, Callable[[], float]] = {}
        for name, collate in (("edldist.collate", edldist.collate), ("default_collate", default_collate)):
            batches = iter(opened.enter_context(_open_path(images, collate)))
            paths[name] = functools.partial(_samples_a_second, batches, settings)
        runs = interleave(settings.repeats, **paths, limit=lambda: size * rate(stack, settings.seconds))
    return Result(
        [
            Figure.median_of(f"images, {name}", "samples/s", runs[name], runs["limit"], "stacking alone")
            for name in paths
        ]
    )


def _samples_a_second(batches: Iterator[Any], settings: Settings) -> float:
    return LARGE_SHARED.batch * rate(lambda: next(batches), settings.seconds)
