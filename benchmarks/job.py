"""A small job to measure: a coordinator, teacher workers, and loaders or ranks that they serve."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import edldist
from edldist.keys.folder import KeyFolder
from edldist_benchmarks.processes import EDLDIST, Processes
from edldist_benchmarks.teachers import TASK_SAMPLES

__all__ = ["WORKERS_PER_PROCESS", "Job", "open_job"]

WORKERS_PER_PROCESS = 8
"""Simulated workers share processes, or 64 of them would import torch 64 times into this machine."""


class Job:
    """Starts the parts of a job and waits until they know each other.

    Everything of it is on this host, so tensors go through shared memory, unless ``shared`` is false.

    Args:
        keys: folder of keys with which everything is sealed; None: nothing is.
    """

    def __init__(
        self,
        processes: Processes,
        stack: contextlib.ExitStack,
        shared: bool = True,
        keys: Path | None = None,
    ) -> None:
        self.processes = processes
        sealed = {} if keys is None else {"EDLDIST_KEYS": str(keys)}
        self._transport = {"EDLDIST_SHARED_MEMORY": str(int(shared)), **sealed}
        self.address = processes.coordinator(**sealed)
        self.coordinator_pid = processes.pid_of("coordinator")
        self._stack = stack
        self._started = 0

    def teacher(
        self, model: str, batch_size: int, labels: str = "", options: Sequence[str] = (), **env: str
    ) -> subprocess.Popen[bytes]:
        """One real teacher worker of ``module:factory``, or of a factory in ``benchmarks.teachers``."""
        path = model if ":" in model else f"edldist_benchmarks.teachers:{model}"
        command = [*EDLDIST, "teacher", "--coordinator", self.address, "--allow-nonfinite", *options]
        command += ["--model", path, "--batch-size", str(batch_size)]
        return self._start("teacher", *command, EDLDIST_BENCH_LABEL=labels, **env)

    def simulated(self, workers: int, pass_s: float, labels: str = "float32:10") -> None:
        """Workers that take ``pass_s`` for 32 samples, as threads of a few processes."""
        while workers > 0:
            count = min(workers, WORKERS_PER_PROCESS)
            command = [sys.executable, "-m", "edldist_benchmarks.simulated", self.address, str(count)]
            env = {"EDLDIST_BENCH_LABEL": labels, "EDLDIST_BENCH_PASS_S": str(pass_s)}
            self._start("simulated", *command, **env)
            workers -= count

    def narrow(self, pass_s: float, labels: str, codec: str, bytes_a_second: float) -> None:
        """One such worker in a process of its own, whose link lets so many bytes of labels through."""
        command = [sys.executable, "-m", "edldist_benchmarks.narrow", self.address, codec]
        env = {"EDLDIST_BENCH_LABEL": labels, "EDLDIST_BENCH_PASS_S": str(pass_s)}
        self._start("narrow", *command, repr(bytes_a_second), **env)

    def one_simulated(self, pass_s: float, labels: str = "float32:10") -> subprocess.Popen[bytes]:
        """The same as a real worker in a process of its own."""
        return self.teacher("paced", TASK_SAMPLES, labels, EDLDIST_BENCH_PASS_S=str(pass_s))

    def loader(self, batches: Iterable[Any], workers: int, **options: Any) -> edldist.DistillLoader:
        """A loader in this process that is served by ``workers`` workers."""
        with _variables(self._transport):
            loader = edldist.DistillLoader(batches, coordinator=self.address, **options)
        self._stack.enter_context(loader)
        self.await_workers(loader, workers)
        return loader

    def await_workers(self, loader: edldist.DistillLoader, workers: int) -> None:
        self.processes.wait(f"{workers} workers", lambda: loader.stats()["teachers"] == workers)

    def rank(self, book: Path, *arguments: str, **env: str) -> subprocess.Popen[bytes]:
        """A loader in a process of its own that notes its progress in ``book``."""
        command = [sys.executable, "-m", "edldist_benchmarks.student", self.address, str(book), *arguments]
        return self._start("rank", *command, **env)

    def _start(self, role: str, *command: str, **env: str) -> subprocess.Popen[bytes]:
        self._started += 1
        return self.processes.start(f"{role}-{self._started}", *command, **env, **self._transport)


@contextlib.contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process for a moment; the runner cleared those of ``EDLDIST_``."""
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]


@contextlib.contextmanager
def open_job(shared: bool = True, sealed: bool = False) -> Iterator[Job]:
    """A job with its coordinator; everything ends with the block, loaders first.

    Args:
        shared: whether tensors go through shared memory.
        sealed: whether it has keys.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edldist-bench-")))
        processes = stack.enter_context(Processes(folder, watched=True))
        keys = folder / "keys" if sealed else None
        if keys is not None:
            KeyFolder(keys).make()
        yield Job(processes, stack, shared, keys)
