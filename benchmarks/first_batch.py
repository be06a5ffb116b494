"""What the comparison of workers costs a rank before its first batch (docs/teachers.md).

``python -m edldist_benchmarks.first_batch [--rounds N]``, in the project's folder, prints for the teachers of
``examples/digits`` and ``examples/lm``, which their ``prepare.py`` has trained, the median time (and range)
from the making of a loader to its first batch, with ``agreement="off"`` and with the default, in turn. Two
workers have been there from before, on this host.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

import edldist
from edldist_benchmarks.figures import interleave
from edldist_benchmarks.job import Job, open_job

__all__ = ["main"]

WORKERS = 2
Batches = Callable[[], list[dict[str, torch.Tensor]]]


def digits() -> list[dict[str, torch.Tensor]]:
    return [
        {"image": torch.rand(64, 1, 16, 16, generator=torch.Generator().manual_seed(n))} for n in range(4)
    ]


def texts() -> list[dict[str, torch.Tensor]]:
    from examples.lm.text import Draws, read

    draws = Draws(read("all"), 128, 0)
    return [{"tokens": torch.stack([draws[32 * n + k]["tokens"][:-1] for k in range(32)])} for n in range(4)]


CASES: dict[str, tuple[Batches, str, Sequence[str]]] = {
    "digits": (digits, "image", ()),
    "lm": (texts, "tokens", ("--codec", "topk:32", "--outputs", "logits")),
}


def first_batch_s(job: Job, batches: list[dict[str, torch.Tensor]], key: str, **options: Any) -> float:
    began = time.perf_counter()
    with edldist.DistillLoader(batches, inputs=key, coordinator=job.address, **options) as loader:
        next(iter(loader))
        return time.perf_counter() - began


def measure(name: str, rounds: int) -> dict[str, list[float]]:
    """Seconds to the first batch with workers that were compared, and without."""
    make, key, options = CASES[name]
    batches, weights = make(), ["--weights", f"examples/{name}/build/teacher.safetensors"]
    with open_job() as job:
        for _ in range(WORKERS):
            job.teacher(f"examples.{name}.models:teacher", 64, options=[*weights, *options])
        loader = job.loader(itertools.repeat(batches[0]), WORKERS, inputs=key, checkpointed=False)
        next(iter(loader))  # the workers' first passes are theirs
        loader.close()
        return interleave(
            rounds,
            without=lambda: first_batch_s(job, batches, key, agreement="off", checkpointed=False),
            compared=lambda: first_batch_s(job, batches, key, checkpointed=False),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    print("| teacher | not compared, ms | compared, ms |\n|---|---|---|")
    for name in CASES:
        runs = measure(name, rounds)
        print(f"| {name} | {_spread(runs['without'])} | {_spread(runs['compared'])} |", flush=True)


def _spread(seconds: Sequence[float]) -> str:
    """Median and range, in milliseconds."""
    low, middle, high = (1e3 * value for value in (min(seconds), statistics.median(seconds), max(seconds)))
    return f"{middle:.0f} ({low:.0f} to {high:.0f})"


if __name__ == "__main__":
    main()
