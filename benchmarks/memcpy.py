"""The limit of shared memory: a process that copies the same bytes from its own memory, with no transport.

``python -m edldist_benchmarks.memcpy INPUT_BYTES LABEL_BYTES BATCHES`` reads a number of seconds from each
line of its input, copies as long, and answers with the batches a second. It goes round BATCHES
different inputs, as its rival does, so that neither finds them in a cache.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

from edldist_benchmarks.figures import rate
from edldist_benchmarks.processes import ROOT
from edldist_launch.process.tie import tied_command

__all__ = ["copy_rate"]


@contextlib.contextmanager
def copy_rate(input_bytes: int, label_bytes: int, batches: int) -> Iterator[Callable[[float], float]]:
    """A copying process that waits, and a function from seconds to batches copied a second."""
    sizes = (str(input_bytes), str(label_bytes), str(batches))
    command = [sys.executable, "-m", "edldist_benchmarks.memcpy", *sizes]
    process = subprocess.Popen(
        tied_command(command, parent=os.getpid(), signum=signal.SIGKILL),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    orders, answers = process.stdin, process.stdout
    assert orders is not None and answers is not None

    def copies(seconds: float) -> float:
        print(seconds, file=orders, flush=True)
        return float(answers.readline())

    try:
        yield copies
    finally:
        process.kill()
        process.wait()
        orders.close()
        answers.close()


def _serve(input_bytes: int, label_bytes: int, batches: int) -> None:
    import torch

    # Ones, since untouched zeros would all lie in one page.
    inputs = itertools.cycle([torch.ones(input_bytes, dtype=torch.uint8) for _ in range(batches)])
    labels = torch.ones(label_bytes, dtype=torch.uint8)
    into_inputs, into_labels = torch.ones_like(next(inputs)), torch.ones_like(labels)

    def copy_batch() -> None:
        into_inputs.copy_(next(inputs))
        into_labels.copy_(labels)

    for line in sys.stdin:
        print(rate(copy_batch, float(line)), flush=True)


if __name__ == "__main__":
    _serve(*map(int, sys.argv[1:4]))
