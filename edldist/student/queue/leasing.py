"""What a worker that pulls is given, and who is woken for what waits. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from edldist.student.queue.flow import Flow
from edldist.student.queue.hedging import Hedging
from edldist.student.queue.outcomes import Grant
from edldist.student.queue.sleepers import Sleepers
from edldist.student.queue.task import Task
from edldist.student.queue.track import Track
from edldist.student.queue.workers import Worker, Workers

__all__ = ["Leasing"]


class Leasing:
    """Hands the tasks that wait to workers, as a lease each.

    ::

        pull --> something waits that suits it:      leased
        pull --> nothing does, an old lease is slow: leased a second time (``hedge``)
        pull --> nothing:                            asleep, until ``rouse`` names it

    Args:
        flow: how tasks are cut.
        tracks: what waits, by teacher.
        workers: who may pull; holds the leases.
        sleepers: who waits to be woken, by teacher.
        hedging: finds tasks for second leases.

    Attributes:
        hedged: how many tasks were leased a second time.
    """

    def __init__(
        self,
        flow: Flow,
        tracks: Mapping[str, Track],
        workers: Workers,
        sleepers: Mapping[str, Sleepers],
        hedging: Hedging,
    ) -> None:
        self._flow = flow
        self._tracks = tracks
        self._workers = workers
        self._sleepers = sleepers
        self._hedging = hedging
        self.hedged = 0

    # --- who asks ---------------------------------------------------------------------------------

    def lease(self, worker: str, room: int, now: float) -> list[Grant]:
        """Grant a worker tasks that cost ``room`` together (see ``LabelQueue.lease``)."""
        me = self._workers[worker]
        me.quarantined = False
        grants = self._granted(worker, me, room, now)
        if grants:
            self._sleepers[me.teacher].forget(worker)
        else:
            self._sleepers[me.teacher].sleep(worker, room)
        return grants

    def hedge(self, worker: str, room: int, now: float, older_than_s: float) -> Grant | None:
        """Lease an old task a second time (see ``LabelQueue.hedge``)."""
        me = self._workers[worker]
        task = self._hedging.task_for(me, room, now, older_than_s)
        if task is None:
            return None
        self.hedged += 1
        self._sleepers[me.teacher].forget(worker)
        return self._grant(task, worker, now, alone=False)

    def has_work(self, worker: str, now: float) -> bool:
        """Whether a pull of this worker would be granted something now."""
        track = self._tracks[self._workers[worker].teacher]
        return self._could_take(worker, track, track.next_alone() is not None, now)

    def part(self, worker: str) -> None:
        """A worker is gone: nothing is kept for it, and nobody waits until it holds nothing."""
        self._sleepers[self._workers[worker].teacher].forget(worker)
        for track in self._tracks.values():
            if track.draining == worker:
                track.draining = None

    # --- who sleeps -------------------------------------------------------------------------------

    @property
    def sleepers(self) -> bool:
        """Whether anybody is asleep."""
        return any(self._sleepers.values())

    def asleep(self, worker: str) -> bool:
        """Whether a worker waits to be woken."""
        return worker in self._sleepers[self._workers[worker].teacher]

    def sleep(self, worker: str, room: int) -> None:
        """A worker with room for so much was told that there is nothing."""
        self._sleepers[self._workers[worker].teacher].sleep(worker, room)

    def rouse(self, teacher: str, now: float, most_passed_over: int) -> list[str]:
        """Wake sleepers for what waits, the longest sleeper first (see ``Sleepers.rouse``)."""
        track = self._tracks[teacher]
        sleepers = self._sleepers[teacher]
        if not (sleepers and track.cost):
            return []
        alone = track.next_alone() is not None
        return sleepers.rouse(
            *(track.cost, track.least_cost),
            lambda worker: self._could_take(worker, track, alone, now),
            *(now, most_passed_over),
        )

    def rouse_to_hedge(self, teacher: str, now: float, older_than_s: float) -> list[str]:
        """Wake as many sleepers as there are tasks of which each could have one as a second worker."""
        woken = self._hedging.sleepers(teacher, self._sleepers[teacher], now, older_than_s)
        for worker in woken:
            self._sleepers[teacher].wake(worker, 0, now)
        return woken

    # --- inside -----------------------------------------------------------------------------------

    def _granted(self, worker: str, me: Worker, room: int, now: float) -> list[Grant]:
        track = self._tracks[me.teacher]
        if not me.free:
            return []
        alone = track.next_alone()
        if alone is not None:
            if not me.leases:
                track.draining = None
                track.remove(alone)
                return [self._grant(alone, worker, now, alone=True)]
            track.draining = track.draining or worker
            if track.draining == worker:
                return []
        grants: list[Grant] = []
        while room > 0:
            task = track.take(room, not grants, lambda task: self._suits(task, worker, now))
            if task is None:
                break
            grant = self._grant(task, worker, now, alone=False)
            room -= grant.cost
            grants.append(grant)
        return grants

    def _could_take(self, worker: str, track: Track, alone: bool, now: float) -> bool:
        me = self._workers[worker]
        if not me.free:
            return False
        if alone:
            if not me.leases:
                return True
            if track.draining in (None, worker):
                return False
        return track.has_work(lambda task: self._suits(task, worker, now))

    def _suits(self, task: Task, worker: str, now: float) -> bool:
        """Whether a task that came back may go to a worker: not if it has it, or has failed on it.

        One that failed gets it again only if no other one can be expected to take it.
        """
        if task.leases and any(lease.worker == worker for lease in task.leases.values()):
            return False
        return worker not in task.failed_by or self._workers.none_else_takes(task, now, self._flow)

    def _grant(self, task: Task, worker: str, now: float, *, alone: bool) -> Grant:
        return self._workers.open(task, worker, now, alone=alone, own_pass=alone or self._flow.fixed)
