"""What must hold after every step of a simulation, and when all is quiet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.rank import RankProcess
    from tests.simulation.worker import WorkerProcess

__all__ = ["rank_faults", "rest_faults", "stuck_pulls", "worker_faults"]


def rank_faults(rank: RankProcess) -> Iterator[str]:
    """What is wrong with a rank's tables."""
    service = rank.service
    delivery = service.delivery
    queue = delivery._queue
    delivery.validate()
    connected = {worker.key for worker in service._peers}
    known = {name for name, _ in queue._workers}
    missing = delivery._missing & service._peers.teachers()
    if missing:
        yield f"{sorted(missing)} count as missing, and have workers"
    if known != connected:
        yield f"the queue knows workers {sorted(known)}, connected are {sorted(connected)}"


def worker_faults(process: WorkerProcess) -> Iterator[str]:
    """What is wrong with a worker's tables."""
    service = process.worker.service
    service._ledger.validate()
    strangers = {student for student, _ in service._ledger._held} - service._students.keys()
    if strangers:
        yield f"{process.name} holds tasks of {sorted(strangers)}, which it does not serve"


def stuck_pulls(ranks: list[RankProcess], workers: list[WorkerProcess]) -> Iterator[tuple[str, str, int]]:
    """Pulls that wait for an answer (worker, rank, number), and sleepers whose rank thinks them awake (0)."""
    for rank in ranks:
        for peer in rank.service._peers:
            worker = next((w for w in workers if w.worker_id == peer.name), None)
            if worker is None or not worker.alive or worker.draining or worker.hung:
                continue
            pulled, asleep = worker.worker.service._ledger._demand.state(rank.name)
            if pulled:
                yield worker.name, rank.name, pulled
            elif asleep and not rank.service.delivery.asleep(peer.key):
                yield worker.name, rank.name, 0


def rest_faults(ranks: list[RankProcess], workers: list[WorkerProcess]) -> Iterator[str]:
    """What is left when nothing is under way any more."""
    for process in workers:
        service = process.worker.service
        if len(service._ledger) or service._outbox:
            yield f"{process.name} still holds {sorted(service._ledger._held)}"
        if service._students:
            yield f"{process.name} still serves {sorted(service._students)}, who left long ago"
    for rank in ranks:
        queue = rank.service.delivery._queue
        if queue.open_batches or queue.nbytes:
            yield f"{rank.name} still has {queue.open_batches} batches of {queue.nbytes} bytes"
