"""How much of a bare echo of the same bytes the whole label path reaches, over TCP."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import edldist
from benchmarks.echo import echo_rate

__all__ = ["CASES", "Case", "measure"]

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Case:
    """One shape of batches and labels, and the share of the echo that it should reach."""

    name: str
    batch: int
    sample_shape: tuple[int, ...]
    input_dtype: str
    label_dtype: str
    label_width: int
    budget: float

    @property
    def input_bytes(self) -> int:
        sample = torch.empty(0, dtype=getattr(torch, self.input_dtype)).element_size()
        for size in self.sample_shape:
            sample *= size
        return sample * self.batch

    @property
    def label_bytes(self) -> int:
        size = torch.empty(0, dtype=getattr(torch, self.label_dtype)).element_size()
        return self.batch * self.label_width * size


CASES = [
    Case("128x3x224x224 uint8 in, 128x1000 fp16 out", 128, (3, 224, 224), "uint8", "float16", 1000, 0.85),
    Case("128 samples of 64 bytes in, 128x10 fp32 out", 128, (64,), "uint8", "float32", 10, 0.60),
]


def measure(case: Case, repeats: int, seconds: float) -> dict[str, object]:
    """Interleave the echo and the label path, and compare their medians, in samples per second."""
    echo, path = [], []
    with _job(case) as loader:
        batches = iter(loader)
        for _ in range(repeats):
            path.append(case.batch * _rate(batches, seconds))
            echo.append(case.batch * echo_rate(case.input_bytes, case.label_bytes, seconds))
        stats = loader.stats()
    echo_median, path_median = sorted(echo)[repeats // 2], sorted(path)[repeats // 2]
    return {
        "name": case.name,
        "samples_per_s": path_median,
        "echo_samples_per_s": echo_median,
        "ratio": path_median / echo_median,
        "budget": case.budget,
        "runs": {"samples_per_s": path, "echo_samples_per_s": echo},
        "requeued": stats["requeued"],
    }


def _rate(batches: Iterator[object], seconds: float) -> float:
    began = time.perf_counter()
    while time.perf_counter() - began < seconds / 5:
        next(batches)
    count, began = 0, time.perf_counter()
    while (took_s := time.perf_counter() - began) < seconds:
        next(batches)
        count += 1
    return count / took_s


@contextlib.contextmanager
def _job(case: Case) -> Iterator[edldist.DistillLoader]:
    """A coordinator and one no-op worker, each a real process, and a loader in this one."""
    environment = dict(os.environ, EDLDIST_BENCH_LABEL=f"{case.label_dtype}:{case.label_width}")
    command = [sys.executable, "-m", "launch"]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        ready = Path(folder) / "ready.json"
        coordinator = [*command, "coordinator", "--bind", "tcp://127.0.0.1:0", "--http", "127.0.0.1:0"]
        _start(stack, [*coordinator, "--ready-file", str(ready)], environment)
        while not ready.exists():
            time.sleep(0.02)
        address = json.loads(ready.read_text())["address"]
        teacher = [*command, "teacher", "--coordinator", address, "--model", "benchmarks.teachers:noop"]
        _start(stack, [*teacher, "--batch-size", str(case.batch), "--allow-nonfinite"], environment)
        batch = torch.zeros(case.batch, *case.sample_shape, dtype=getattr(torch, case.input_dtype))
        yield stack.enter_context(edldist.DistillLoader(_endless(batch), coordinator=address))


def _endless(batch: torch.Tensor) -> Iterator[torch.Tensor]:
    while True:
        yield batch


def _start(stack: contextlib.ExitStack, command: list[str], environment: dict[str, str]) -> None:
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)
