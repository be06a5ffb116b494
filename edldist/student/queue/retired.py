"""Labels that are of no use any more, and are asked for once more. Pure.

Their teacher has newer versions, or the worker that made them was found to be another model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edldist.student.queue.batches import Batches
from edldist.student.queue.blame import Blame
from edldist.student.queue.coalescing import Coalescing
from edldist.student.queue.provenance import Provenance
from edldist.student.queue.task import Task
from edldist.student.queue.track import Track
from edldist.student.queue.wanted import Wanted
from edldist.student.queue.workers import Workers

__all__ = ["ask_again", "take_back"]


def ask_again(
    batches: Batches,
    track: Track,
    workers: Workers,
    blame: Blame,
    coalescing: Coalescing,
    batch: int,
    wanted: Wanted,
    nbytes: int,
) -> int | None:
    """Let all that a teacher is to label of a batch wait once more, whatever became of it so far.

    Not where something of the batch was given up.

    Args:
        track: of that teacher.
        wanted: all that it labels of the batch.
        nbytes: memory of its labels, which is free now.

    Returns:
        How many samples had labels; None if nothing was done.
    """
    if blame.gave_up(batch):
        return None
    leases = [lease for lease in workers.leases_of_batch(batch) if lease.tasks[0].teacher == track.teacher]
    tasks = {task for lease in leases for task in lease.tasks}
    tasks |= {task for task in (*track, *blame) if (task.batch, task.teacher) == (batch, track.teacher)}
    followed = coalescing.unfollow(track.teacher, batch)
    labelled = wanted.missing - track.uncut()[batch] - sum(task.samples for task in tasks) - followed
    for lease in leases:
        workers.close(lease)
    track.forget(batch)
    blame.drop(batch, track.teacher)
    batches.unsettle(batch, labelled, nbytes)
    track.offer_again(batch, wanted)
    return labelled


def take_back(
    batches: Batches,
    tracks: Mapping[str, Track],
    blame: Blame,
    provenance: Provenance,
    worker: str,
    free: Callable[[int, str], int],
) -> int:
    """Let all wait once more that a worker has labelled of open batches, but for those that were given up.

    Args:
        tracks: by teacher.
        free: called with batches and teachers of which no labels are left: lets go of their memory, and says
            how much that was.

    Returns:
        How many samples that are.
    """
    taken = [each for each in provenance.take_back(worker) if not blame.gave_up(each.batch)]
    for each in taken:
        batches.unsettle(each.batch, each.samples, 0)
        tracks[each.teacher].put_back(Task(each.teacher, each.batch, each.start, each.stop, each.wanted))
    for batch, teacher in sorted({(each.batch, each.teacher) for each in taken}):
        if not provenance.labels_of(batch, teacher):
            batches.unsettle(batch, 0, free(batch, teacher))
    return sum(each.samples for each in taken)
