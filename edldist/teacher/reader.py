"""Threads that read tasks' inputs from a data set while the model computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from torch import Tensor

from edldist.teacher.dataset import IndexedDataset
from edldist.teacher.exchange import inputs_of
from edldist.teacher.tasks import HeldTask

__all__ = ["DatasetReader"]

_Job = tuple["Future[dict[str, Tensor]]", Callable[[], dict[str, Tensor]]]


class DatasetReader:
    """Reads the samples that tasks name, in order of the tasks.

    The compute thread calls ``read`` and ``close``; each task is cut into one piece for each thread.
    With one thread, the data set is only ever touched by that one. A read that never returns holds
    up its task, and nobody's exit: the threads are daemons.
    """

    def __init__(self, dataset: IndexedDataset, threads: int = 1) -> None:
        self._dataset = dataset
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"edldist-dataset-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def read(self, tasks: Sequence[HeldTask]) -> list[Future[dict[str, Tensor]]]:
        """Begin to read; the parts of the inputs in order. What is wrong with a task is in its parts."""
        parts: list[Future[dict[str, Tensor]]] = []
        for task in tasks:
            try:
                index, seed = self._dataset.check(inputs_of([task]))
            except Exception as exc:
                failed: Future[dict[str, Tensor]] = Future()
                failed.set_exception(exc)
                parts.append(failed)
                continue
            size = -(-len(index) // len(self._threads))
            for first in range(0, len(index), size):
                parts.append(
                    self._submit(
                        index[first : first + size],
                        None if seed is None else seed[first : first + size],
                        first,
                    )
                )
        return parts

    def close(self) -> None:
        """Let the threads end after what they are reading."""
        for _ in self._threads:
            self._jobs.put(None)

    def _submit(self, index: Tensor, seed: Tensor | None, first: int) -> Future[dict[str, Tensor]]:
        future: Future[dict[str, Tensor]] = Future()
        self._jobs.put((future, lambda: self._dataset.read(index, seed, first)))
        return future

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, read = job
            try:
                future.set_result(read())
            except BaseException as exc:
                future.set_exception(exc)
