"""What a store of labels saves: a second epoch without teachers, and how fast found labels arrive.

Found labels of tokens stand beside live ones: of the cheapest language model that there can be, whose logits
over 50,257 entries cost nothing and are packed as topk:64, and of a worker that computes nothing and sends
such bytes as they are, so that what it takes is the label path alone (row ``tokens``). All through shared
memory; found labels come out of files that an earlier loop wrote.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edldist_benchmarks.figures import Budget, Figure, Result, Settings, interleave, rate
from edldist_benchmarks.job import Job, open_job
from edldist_benchmarks.label_path import Case

__all__ = ["measure"]

_BATCHES = 16
_TIMES = 3.0
"""So many times as fast as live labels found ones should arrive."""
_STEP = 0.01
"""So much of the first epoch's forwards the second may take."""
_VERSION = ("--model-version", "1")
_PACKED = Case("token labels", 8, (128,), torch.int64, "packed=uint8:128x196", None, 8, shared=True)
_LOGITS = replace(_PACKED, labels="float16:128x50257")


def measure(settings: Settings) -> Result:
    """Found labels of tokens against live ones; what a second epoch asks for, and one of another version."""
    result = Result()
    for case, options, what, budget in (
        (_LOGITS, ("--codec", "topk:64"), "labels that topk:64 packs of logits", Budget(at_least=_TIMES)),
        (_PACKED, (), "labels that come as they are", None),
    ):
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edldist-kept-")))
            job = stack.enter_context(open_job(True, False))
            job.teacher("noop", case.batch, case.labels, (*options, *_VERSION))
            live = job.loader(_batches(case), workers=1, agreement="off")
            _fill(job, case, folder)
            found = job.loader(_batches(case), workers=1, store=folder, agreement="off")
            rates = {
                name: functools.partial(_samples_a_second, case, iter(loader), settings)
                for name, loader in (("live", live), ("found", found))
            }
            runs = interleave(settings.repeats, **rates)
            figure = "found in a store: " + what
            result.figures.append(
                Figure.median_of(figure, "samples/s", runs["found"], runs["live"], "live", budget)
            )
            if lacking := int(found.stats()["store_misses"] or 0):
                result.notes.append(f"{lacking} samples were not found: {figure} is no store path")
    result.figures += _epochs()
    return result


def _epochs() -> list[Figure]:
    """Samples that teachers label in a second epoch, of the same weights and of others."""
    labels: dict[str, list[Tensor]] = {}
    asked: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edldist-kept-")))
        job = stack.enter_context(open_job(True, False))
        for name, version in (("teacher", "1"), ("changed", "2")):
            options = ("--name", name, "--model-version", version)
            job.teacher("convolving", 32, options=options)
        for run, (name, seed) in {
            "first": ("teacher", 1),
            "second": ("teacher", 2),
            "changed": ("changed", 3),
        }.items():
            loader = job.loader(_images(seed), workers=1, inputs="input", teacher=name, store=folder)
            rows: dict[int, Tensor] = {}
            for batch, its in loader:
                rows |= dict(zip(batch["id"].tolist(), its["logits"].clone(), strict=True))
            labels[run] = [rows[id_] for id_ in sorted(rows)]
            asked[run] = int(loader.stats()["store_misses"] or 0)
            loader.close()
    same = all(torch.equal(*pair) for pair in zip(labels["first"], labels["second"], strict=True))
    first = float(asked["first"])
    return [
        Figure.median_of(
            "samples labelled in a second epoch" + ("" if same else ", WITH OTHER BYTES"),
            *("samples", [float(asked["second"])], [first], "the first epoch", Budget(at_most=_STEP)),
        ),
        Figure.median_of(
            *(
                "samples labelled once the teacher has another version",
                "samples",
                [float(asked["changed"])],
                [first],
            ),
            *("the first epoch", Budget(at_least=1.0)),
        ),
    ]


def _images(seed: int) -> list[dict[str, Tensor]]:
    """The same 2,048 samples, in an order of their own."""
    images = torch.randn(2048, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(2048, generator=torch.Generator().manual_seed(seed))
    return [{"id": some, "input": images[some]} for some in order.split(32)]


def _batches(case: Case) -> Iterator[Tensor]:
    """Endless batches of tokens, of which a few come again and again."""
    shape = (_BATCHES, case.batch, *case.sample_shape)
    made = torch.randint(0, 50_257, shape, generator=torch.Generator().manual_seed(0))
    yield from (batch.clone() for batch in itertools.cycle(made))


def _fill(job: Job, case: Case, folder: Path) -> None:
    """Keep the labels of all batches, in files."""
    batches = itertools.islice(_batches(case), _BATCHES)
    with job.loader(batches, workers=1, store=folder, agreement="off") as loader:
        for _ in loader:
            pass


def _samples_a_second(case: Case, batches: Iterator[Any], settings: Settings) -> float:
    return case.batch * rate(lambda: next(batches), settings.seconds)
