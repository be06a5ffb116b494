"""Label queues with workers, filled and emptied in one step."""

from __future__ import annotations

from edldist.student.queue.flow import Flow
from edldist.student.queue.queue import LabelQueue


def fill(queue: LabelQueue, *sizes: int) -> list[int]:
    return [queue.offer(size, nbytes=size) for size in sizes]


def finish(queue: LabelQueue, worker: str, samples: int = 10_000, now: float = 0.0) -> int:
    grants = queue.lease(worker, samples, now)
    for grant in grants:
        queue.complete(grant.lease, now)
    return len(grants)


def joined(*workers: str, flow: Flow | None = None) -> LabelQueue:
    queue = LabelQueue(["teacher"], flow)
    for worker in workers:
        queue.join(worker, "teacher")
    return queue
