"""Whether the parts of a label queue agree with each other, for tests. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from edldist.student.queue.batches import Batches
from edldist.student.queue.blame import Blame
from edldist.student.queue.coalescing import Coalescing
from edldist.student.queue.provenance import Provenance
from edldist.student.queue.sleepers import Sleepers
from edldist.student.queue.track import Track
from edldist.student.queue.workers import Workers

__all__ = ["validate"]


def validate(
    batches: Batches,
    tracks: Mapping[str, Track],
    workers: Workers,
    blame: Blame,
    coalescing: Coalescing,
    sleepers: Mapping[str, Sleepers],
    provenance: Provenance,
    now: float,
) -> None:
    """Check that all that is known in two places is the same in both.

    Args:
        batches: those of the queue.
        tracks: by teacher.
        workers: those of the queue, of all teachers.
        blame, coalescing: of the queue.
        sleepers: by teacher.
        provenance: of the queue.
        now: monotonic seconds.

    Raises:
        AssertionError: it is not.
    """
    waiting: Counter[int] = Counter()
    covered: Counter[int] = Counter()
    tasks = {task for lease in workers.leases() for task in lease.tasks} | set(blame)
    for track in tracks.values():
        track.validate()
        waiting += track.pieces()
        covered += track.uncut()
        tasks |= set(track)
        assert track.draining is None or track.draining in workers
    coalescing.validate()
    waiting += coalescing.pieces()
    batches.validate(waiting)
    workers.validate()
    blame.validate(now)
    for task in tasks:
        covered[task.batch] += task.samples
        assert task.waiting == any(each is task for each in tracks[task.teacher])
        assert task.waiting or task in blame or not task.idle or blame.gave_up(task.batch)

    def unlabelled(teacher: str, batch: int) -> list[tuple[int, int]]:
        cut = [(t.start, t.stop) for t in tasks if (t.teacher, t.batch) == (teacher, batch)]
        return [*tracks[teacher].uncut_of(batch), *cut]

    for teacher, (batch, sample) in coalescing.leaders():  # somebody labels it, or is to
        assert any(start <= sample < stop for start, stop in unlabelled(teacher, batch))
    provenance.validate(list(batches), unlabelled)
    covered += coalescing.covered()
    for batch, lacking in batches.lacking().items():
        assert covered[batch] == lacking or (covered[batch] < lacking and blame.gave_up(batch))
    for teacher, asleep in sleepers.items():
        asleep.validate()
        for worker, _ in asleep.items():
            assert worker in workers and workers[worker].teacher == teacher
