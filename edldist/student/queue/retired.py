"""Labels that are of no use any more, because their teacher has newer versions: asked for once more. Pure."""

from __future__ import annotations

from edldist.student.queue.batches import Batches
from edldist.student.queue.blame import Blame
from edldist.student.queue.track import Track
from edldist.student.queue.wanted import Wanted
from edldist.student.queue.workers import Workers

__all__ = ["ask_again"]


def ask_again(
    batches: Batches, track: Track, workers: Workers, blame: Blame, batch: int, wanted: Wanted, nbytes: int
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
    labelled = wanted.missing - track.uncut()[batch] - sum(task.samples for task in tasks)
    for lease in leases:
        workers.close(lease)
    track.forget(batch)
    blame.drop(batch, track.teacher)
    batches.unsettle(batch, labelled, nbytes)
    track.offer_again(batch, wanted)
    return labelled
