"""A rank that trains in turns: with labels in memory, over TCP, and through shared memory.

``training_script.py PLAN`` is run by ``edldist student``; ``training`` says what is in PLAN. All ranks take
the same number of steps in each turn, each on a core of its own where there is one to spare for the rest: the
threads that serve it, data loaders' workers and teacher workers.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

import edldist
from edldist_benchmarks.figures import interleave
from edldist_benchmarks.pinning import own_core
from edldist_benchmarks.small_net import CLASSES, Labelled, trainer

__all__ = ["BATCH", "SOURCES", "TRANSPORTS"]

BATCH = 64
SOURCES = {"memory": "one batch", "loader": "a data loader that augments"}
"""Where batches come from."""
TRANSPORTS = {"tcp": "TCP", "shared": "shared memory"}
"""How labels travel."""
CALIBRATION_STEPS = 8
WARM_UP = 0.2
_IMAGES = 1024
_ENDLESS = 1 << 30


class Augmented(Dataset[Tensor]):
    """Images of 3x32x32, flipped and shifted by up to four pixels, as a data loader's worker does it."""

    def __init__(self) -> None:
        self._images = torch.rand(_IMAGES, 3, 40, 40)

    def __len__(self) -> int:
        return _ENDLESS

    def __getitem__(self, index: int) -> Tensor:
        top, left, flipped = torch.randint(0, 9, (3,)).tolist()
        image = self._images[index % _IMAGES, :, top : top + 32, left : left + 32]
        return image.flip(-1) if flipped % 2 else image


def batches_of(source: str) -> Iterable[Tensor]:
    """Batches without end."""
    if source == "memory":
        return itertools.repeat(torch.rand(BATCH, 3, 32, 32))
    return DataLoader(Augmented(), BATCH, num_workers=1, collate_fn=edldist.collate)


class Steps:
    """The same number of steps on all ranks, timed.

    Args:
        train: takes one.
        count: of them.
    """

    def __init__(self, train: Callable[[Labelled], None], count: int) -> None:
        self._train = train
        self._count = count
        self.switches: list[int] = []
        self.seconds: list[float] = []

    def rate(self, items: Iterator[Labelled]) -> float:
        """Samples a second of all ranks."""
        for _ in range(max(1, round(WARM_UP * self._count))):
            self._train(next(items))
        before, began = involuntary_switches(), time.perf_counter()
        for _ in range(self._count):
            self._train(next(items))
        took_s = time.perf_counter() - began
        self.switches.append(involuntary_switches() - before)
        self.seconds.append(took_s)
        return BATCH * dist.get_world_size() * self._count / took_s


def involuntary_switches() -> int:
    """How often this thread had to give its core up to another."""
    status = Path("/proc/thread-self/status").read_text()
    return int(status.partition("nonvoluntary_ctxt_switches:")[2].split()[0])


def measure(plan: dict[str, Any], source: str, train: Callable[[Labelled], None]) -> dict[str, Any]:
    """Runs of a source, by where labels come from."""
    labels = {"logits": torch.ones(BATCH, CLASSES)}
    cores, spare = frozenset(plan["cores"]), frozenset(plan["spare"])
    os.sched_setaffinity(0, cores)  # what this thread starts has its cores
    ways: dict[str, Iterator[Labelled]] = {"plain": ((batch, labels) for batch in batches_of(source))}
    loaders = []
    for transport in TRANSPORTS:
        os.environ["EDLDIST_SHARED_MEMORY"] = str(int(transport == "shared"))
        loaders.append(
            edldist.DistillLoader(batches_of(source), coordinator=plan[transport], checkpointed=False)
        )
        ways[transport] = iter(loaders[-1])
    for items in ways.values():
        next(items)  # so that all threads are there
    own_core(dist.get_rank(), cores, spare)
    began = time.perf_counter()
    for _ in range(CALIBRATION_STEPS):
        train(next(ways["plain"]))
    step_s = (time.perf_counter() - began) / CALIBRATION_STEPS
    count = torch.tensor([max(2, round(plan["seconds"] / step_s))])
    dist.broadcast(count, 0)
    steps = {name: Steps(train, int(count)) for name in ways}
    runs: dict[str, Any] = interleave(
        plan["turns"], **{name: lambda name=name: steps[name].rate(ways[name]) for name in ways}
    )
    runs["switches_a_second"] = {name: sum(each.switches) / sum(each.seconds) for name, each in steps.items()}
    for loader in loaders:
        loader.close()
    return runs


def main(plan: dict[str, Any]) -> None:
    """Measure every source; rank 0 writes down what came of it."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")

    def wrap(model: nn.Module) -> nn.Module:
        return DistributedDataParallel(model) if dist.get_world_size() > 1 else model

    train = trainer(torch.arange(BATCH) % CLASSES, wrap)
    measured = {source: measure(plan, source, train) for source in SOURCES}
    if dist.get_rank() == 0:
        written = Path(plan["result"])
        draft = written.with_suffix(".draft")
        draft.write_text(json.dumps(measured))
        draft.replace(written)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
