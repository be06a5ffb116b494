"""How much of its limit the whole label path reaches: one rank, one no-op worker in a process of its own.

Over TCP the limit is a bare ZeroMQ echo of the same bytes. Through shared memory it is a process
that copies the same bytes from its own memory, with no transport at all.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

import edldist
from edldist.student.memory.handed_over import in_own_slab
from edldist.wire.shm.slab import Slab
from edldist_benchmarks.echo import open_echo
from edldist_benchmarks.figures import Budget, Figure, Result, Settings, interleave, rate
from edldist_benchmarks.job import open_job
from edldist_benchmarks.memcpy import copy_rate
from edldist_benchmarks.teachers import label_bytes

__all__ = ["CASES", "LARGE", "LARGE_SHARED", "LARGE_SLOTS", "SMALL", "TOKENS", "Case", "open_path"]

_MOST_KEPT = 64  # files that a reader keeps mapped, and their bytes (edldist.wire.shm.mappings)
_MOST_KEPT_BYTES = 512 << 20
_HANDED_OVER_FROM_BYTES = 1 << 20  # smaller ones are quicker to copy than to map


@dataclass(frozen=True)
class Case:
    """One shape of batches and labels, how it travels, and the share of the limit it should reach.

    Attributes:
        batch: samples of a batch of the data loader.
        labels: of one sample, see ``benchmarks.teachers``.
        worker_batch: most samples of a forward pass; more than ``batch`` lets small batches share one.
        high_watermark: batches that the rank reads ahead.
        shared: whether tensors travel through shared memory; if not, over TCP.
        slots: whether batches lie where ``edldist.collate`` puts them, in memory that is used again; if not,
            each in a file of its own, as those of ``default_collate``.
    """

    name: str
    batch: int
    sample_shape: tuple[int, ...]
    input_dtype: torch.dtype
    labels: str
    budget: float | None
    worker_batch: int
    high_watermark: int = 8
    shared: bool = False
    slots: bool = False

    @property
    def input_bytes(self) -> int:
        return self.batch * math.prod(self.sample_shape) * self.input_dtype.itemsize

    @property
    def label_bytes(self) -> int:
        return self.batch * label_bytes(self.labels)

    @property
    def model(self) -> str:
        """A worker that maps a batch has to touch it; one that received it did that already."""
        return "copying" if self.shared else "noop"

    def batches(self) -> Iterator[Tensor]:
        """Endless batches, none of which anybody else refers to, as is so of what a ``DataLoader`` yields.

        Large ones lie where its workers put theirs, each in its own file that is mapped when it is yielded,
        or in slots.
        """
        shape = (self.batch, *self.sample_shape)
        if self.slots:
            slabs = [Slab(self.input_bytes) for _ in range(self.ring)]
            for slab in slabs:
                slab.data[:] = 1
            yield from (in_own_slab(slab, self.input_dtype, shape) for slab in itertools.cycle(slabs))
        ring = [torch.ones(shape, dtype=self.input_dtype) for _ in range(self.ring)]
        if not self.handed_over:
            yield from (batch.clone() for batch in itertools.cycle(ring))
        files = [batch.untyped_storage()._share_fd_cpu_() for batch in ring]
        for descriptor, nbytes in itertools.cycle(files):
            yield self._mapped(descriptor, nbytes)

    def _mapped(self, descriptor: int, nbytes: int) -> Tensor:
        storage = torch.UntypedStorage._new_shared_fd_cpu(descriptor, nbytes)  # makes a copy of its own
        return torch.empty(0, dtype=self.input_dtype).set_(storage, 0, (self.batch, *self.sample_shape))

    @property
    def handed_over(self) -> bool:
        return self.shared or self.input_bytes >= _HANDED_OVER_FROM_BYTES

    @property
    def ring(self) -> int:
        """Different batches: more than can be under way at once, or a reader would find them in its cache.

        Files are more than a reader keeps mapped, since those of ``default_collate`` never come again.
        """
        if not self.handed_over:
            return 1
        kept = min(_MOST_KEPT, _MOST_KEPT_BYTES // self.input_bytes) if self.shared and not self.slots else 0
        return max(2 * self.high_watermark, kept + 1)


LARGE = Case("images", 128, (3, 224, 224), torch.uint8, "float16:1000", 0.85, worker_batch=128)
LARGE_SHARED = Case(
    "images, shared", 128, (3, 224, 224), torch.uint8, "float16:1000", 0.85, worker_batch=128, shared=True
)
LARGE_SLOTS = replace(LARGE_SHARED, name="images, shared, edldist.collate", budget=0.90, slots=True)
SMALL = Case("64 bytes", 128, (64,), torch.uint8, "float32:10", 0.60, worker_batch=1024, high_watermark=32)
TOKENS = Case(
    "token labels",
    8,
    (1024,),
    torch.int64,
    "packed=uint8:1024x196",  # what codec topk:64 makes of a vocabulary of 50,257
    0.80,
    worker_batch=8,
)
TOKENS_SHARED = replace(TOKENS, name="token labels, shared", shared=True)
DRAWN = replace(TOKENS, name="token labels, rs:18", labels="packed=uint8:1024x36", budget=None)
# The student sends an id beside each token, and gets its log-probability and that of all others.
GATHERED = replace(DRAWN, name="token labels, gather", sample_shape=(1024, 2), labels="packed=float16:1024x2")

CASES = {"large": LARGE, "large-shared": LARGE_SHARED, "small": SMALL, "tokens": TOKENS}


@contextlib.contextmanager
def open_path(case: Case, sealed: bool = False) -> Iterator[edldist.DistillLoader]:
    """A coordinator and one worker, each a real process, and a loader in this one, with keys or without."""
    with open_job(case.shared, sealed) as job:
        job.teacher(case.model, case.worker_batch, case.labels)
        yield job.loader(case.batches(), workers=1, high_watermark=case.high_watermark)


def large_tcp(settings: Settings) -> Result:
    """128x3x224x224 uint8 in, 128x1000 fp16 out."""
    return _against_echo(settings, LARGE)


def small(settings: Settings) -> Result:
    """128 samples of 64 bytes in, 10 fp32 out each; the worker may take 1,024 samples at once."""
    return _against_echo(settings, SMALL)


def tokens(settings: Settings) -> Result:
    """8x1024 tokens in, labels out as codec topk:64 packs them, by both ways; and as rs:18 and gather do."""
    result = _against_echo(settings, TOKENS, TOKENS_SHARED)
    for case in (DRAWN, GATHERED):
        more = _against_echo(settings, case)
        result.figures += more.figures
        result.notes += more.notes
    return result


def large_shared(settings: Settings) -> Result:
    """The large images through shared memory, the worker copying each batch once: in files, and in slots."""
    result, cases = Result(), (LARGE_SLOTS, LARGE_SHARED)
    with contextlib.ExitStack() as stack:
        loaders = [stack.enter_context(open_path(case)) for case in cases]
        sizes = LARGE_SLOTS.input_bytes, LARGE_SLOTS.label_bytes, LARGE_SLOTS.ring
        copies = stack.enter_context(copy_rate(*sizes))
        paths = {
            case.name: functools.partial(_samples_a_second, case, iter(loader), settings)
            for case, loader in zip(cases, loaders, strict=True)
        }
        limit = lambda: LARGE_SLOTS.batch * copies(settings.seconds)  # noqa: E731
        runs = interleave(settings.repeats, **paths, limit=limit)
    for case in cases:
        result.figures += _result(case, runs[case.name], runs["limit"], "memcpy alone").figures
    return result


def _against_echo(settings: Settings, *cases: Case) -> Result:
    """Cases of the same bytes, each beside the same echo of such batches over TCP."""
    result, first = Result(), cases[0]
    with contextlib.ExitStack() as stack:
        loaders = [stack.enter_context(open_path(case)) for case in cases]
        echo = stack.enter_context(open_echo(first.batches(), first.label_bytes))
        paths = {
            case.name: functools.partial(_samples_a_second, case, iter(loader), settings)
            for case, loader in zip(cases, loaders, strict=True)
        }
        runs = interleave(settings.repeats, **paths, limit=lambda: first.batch * echo(settings.seconds))
        for case, loader in zip(cases, loaders, strict=True):
            result.figures += _result(case, runs[case.name], runs["limit"], "bare echo").figures
            requeued = int(loader.stats()["requeued"] or 0)
            if requeued:
                result.notes.append(f"{requeued} tasks were requeued: the machine was not quiet")
    return result


def _samples_a_second(case: Case, batches: Iterator[Any], settings: Settings) -> float:
    return case.batch * rate(lambda: next(batches), settings.seconds)


def _result(case: Case, values: list[float], limits: list[float], limit_name: str) -> Result:
    budget = None if case.budget is None else Budget(at_least=case.budget)
    return Result([Figure.median_of(case.name, "samples/s", values, limits, limit_name, budget)])
