"""Several workers as threads of one process: ``python -m edldist_benchmarks.simulated ADDRESS COUNT``.

Their forward pass is a sleep, which holds no core and no interpreter lock, so that more workers fit
this machine than it has cores. Each is a whole worker, with sockets and threads of its own.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback

import torch

from edldist.teacher.model.teacher import Teacher
from edldist.teacher.worker import TeacherWorker, WorkerOptions
from edldist_benchmarks.teachers import TASK_SAMPLES

__all__: list[str] = []


def _serve(address: str, count: int) -> None:
    model = "edldist_benchmarks.teachers:paced"
    options = WorkerOptions(address, model, device="cpu", batch_size=TASK_SAMPLES, allow_nonfinite=True)
    workers = [TeacherWorker(options, Teacher(model, torch.device("cpu"))) for _ in range(count)]

    def run(worker: TeacherWorker) -> None:
        try:
            worker.run()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # one that is missing would make the others look slow

    for worker in workers:
        threading.Thread(target=run, args=(worker,), name=worker.worker_id).start()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
