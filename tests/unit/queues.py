"""Label queues with workers, filled and emptied in one step."""

from __future__ import annotations

from edldist.student.queue.flow import Flow
from edldist.student.queue.queue import LabelQueue
from edldist.student.queue.wanted import Wanted


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


def keys(text: str) -> list[bytes]:
    """The key of each sample: those with one letter are equal."""
    return [letter.encode() for letter in text]


def offered(queue: LabelQueue, *texts: str) -> list[int]:
    """Offer a batch of such keys for each text."""
    return [
        queue.offer(len(text), 0, {"teacher": Wanted.whole(len(text))}, {"teacher": keys(text)})
        for text in texts
    ]
