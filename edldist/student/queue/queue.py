"""The label queue: what is pending, leased, done and next to deliver. Pure: no tensors, no sockets.

Every batch is offered in the data loader's order and delivered in that order, once. For each
teacher its samples are cut into tasks at the moment a worker pulls::

    pending --lease--> leased --complete--> done        (all tasks of the head batch: delivered)
       ^                 |
       +---- fail, lose, expire, give back: to the *front*, in batch order

**A worker that lives and is late** accuses nobody. When its lease passes the deadline the task is offered to
others too, and the lease stays open: the first answer labels it, whoever it comes from, and later ones are
duplicates. Meanwhile the worker counts as *stuck* and gets nothing new, until it answers anything: so a
device that hangs for ever keeps the tasks that it has, which others label, and no more.

**Blame.** What speaks against a task, and when it is poison, says ``Task``. A worker that drains and gives a
task back blames nobody.

Not promised here: time. Callers pass ``now`` (monotonic seconds) and act on what is returned.
Not thread-safe: the student's service guards it with one lock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence

from edldist.errors import ConfigError
from edldist.student.queue import checks
from edldist.student.queue.batches import Batches
from edldist.student.queue.blame import Blame
from edldist.student.queue.coalescing import Keys
from edldist.student.queue.flow import Flow
from edldist.student.queue.following import Following
from edldist.student.queue.hedging import Hedging
from edldist.student.queue.lacking import Lacking
from edldist.student.queue.leasing import Leasing
from edldist.student.queue.outcomes import Grant, Overdue, Poison, Returned, TakenBack
from edldist.student.queue.provenance import Labelled, Provenance
from edldist.student.queue.retired import ask_again, take_back
from edldist.student.queue.sleepers import Sleepers
from edldist.student.queue.task import HeldLease, Suspicion, Task
from edldist.student.queue.track import Track
from edldist.student.queue.wanted import Wanted
from edldist.student.queue.workers import Workers

__all__ = ["LabelQueue"]


class LabelQueue:
    """All delivery state of one student rank."""

    def __init__(self, teachers: Sequence[str], flow: Flow | None = None, first_lease: int = 1) -> None:
        """Make an empty queue.

        Args:
            teachers: names whose labels every batch needs; at least one, no two alike.
            flow: bounds.
            first_lease: leases count up from here; a random start tells the leases of two lives
                of a student apart.
        """
        if not teachers or len(set(teachers)) != len(teachers):
            raise ConfigError(f"teacher={list(teachers)!r}: needs one or more different names")
        self.flow = flow or Flow()
        self._batches = Batches(self.flow)
        self._sleepers = sleepers = {teacher: Sleepers() for teacher in teachers}
        self._tracks = {teacher: Track(teacher, self.flow, self._batches.waits) for teacher in teachers}
        self._workers = Workers(first_lease)
        self.answering, self.open_leases = self._workers.answering, self._workers.leases()
        self._provenance = Provenance()
        self.following = Following(self._batches, self._tracks, self._provenance)
        # Invariant: a task without labels waits in its track, is leased in time, or is withheld (or poison).
        self._blame = Blame(self.flow, self._tracks, self.following.release)
        self._lacking = Lacking(self._batches, self._tracks, self._workers, self._blame, self.following)
        hedging = Hedging(self._batches, self._workers, self.flow.cuts_fixed)
        self._leasing = Leasing(self.flow, self._tracks, self._workers, sleepers, hedging)
        self.done = self.failed = self.duplicates = self.late = 0
        self.retracted = 0  # samples

    @property
    def requeued(self) -> int:
        """Tasks that went back to the front."""
        return self._blame.requeued

    @property
    def hedged(self) -> int:
        """Tasks that were leased a second time."""
        return self._leasing.hedged

    # --- the data loader's side -------------------------------------------------------------

    @property
    def open_batches(self) -> int:
        return len(self._batches)

    @property
    def numbers(self) -> list[int]:
        return list(self._batches)

    @property
    def head(self) -> int | None:
        """Number of the batch that is delivered next, if there is one."""
        return self._batches.head

    @property
    def labelled_batches(self) -> int:
        return self._batches.labelled

    @property
    def deliverable_batches(self) -> int:
        """Labelled batches from the head on: what the loop gets before it meets one that lacks labels."""
        return self._batches.deliverable

    @property
    def nbytes(self) -> int:
        return self._batches.nbytes

    def lacking(self, teacher: str) -> Counter[int]:
        """How many samples of each open batch wait for labels of a teacher, by number."""
        return self._lacking.of(teacher)

    def wants_batch(self) -> bool:
        """Whether the data loader should be read now (see ``Flow``)."""
        return self._batches.wanted()

    def full(self) -> bool:
        """Backpressure: every open batch is labelled, and no more should be read."""
        return self._batches.full()

    def offer(
        self, samples: int, nbytes: int, wanted: Mapping[str, Wanted] | None = None, keys: Keys | None = None
    ) -> int:
        """Append a batch and return its number. One of which nothing is wanted is labelled at once.

        Args:
            samples: of the batch.
            nbytes: the memory that it holds, without labels.
            wanted: by teacher; nothing of those that are not named. None: all samples, of every teacher.
            keys: by teacher, of each sample: of those with one key that are under way, one is labelled.
        """
        if wanted is None:
            wanted = dict.fromkeys(self._tracks, Wanted.whole(samples))
        size = missing = 0
        for one in wanted.values():
            size += one.size
            missing += one.missing
        number = self._batches.offer(size, missing, nbytes)
        for teacher, one in wanted.items():
            if keys and teacher in keys:
                one = self.following.samples.offer(teacher, number, one, keys[teacher])
            self._tracks[teacher].offer(number, one)
        return number

    def grow(self, number: int, nbytes: int) -> None:
        """Account for the label memory of a batch."""
        self._batches.grow(number, nbytes)

    def ready(self) -> bool:
        """Whether the next batch in order has all its labels."""
        return self._batches.deliverable > 0

    def lacks_only(self, teachers: Collection[str]) -> frozenset[str]:
        """Of teachers without a worker, those whose labels are what the head lacks, if it lacks no others."""
        return self._lacking.only(teachers)

    def pass_over(self, teachers: Collection[str]) -> None:
        """The head goes on without the labels of teachers that it ``lacks_only``."""
        head = self.head
        assert head is not None
        for name in teachers:
            self._tracks[name].forget(head)
            self._blame.drop(head, name)
            self.following.drop(name, head)
        self._batches.abandon(head)

    def ask_again(self, batch: int, teacher: str, wanted: Wanted, nbytes: int) -> int | None:
        """Labels of a teacher for a batch are of no use any more (see ``retired.ask_again``)."""
        parts = self._batches, self._tracks[teacher], self._workers, self._blame, self.following.samples
        again = ask_again(*parts, batch, wanted, nbytes)
        if again is not None:
            self._provenance.forget(batch, teacher)
        return again

    def abandon(self, batch: int) -> None:
        """Give up labelling a batch: it counts as labelled, late answers as duplicates."""
        self.stall(batch)
        self._batches.abandon(batch)

    def stall(self, batch: int) -> None:
        """Give nothing more of a batch to anybody, and close its leases; it stays unlabelled, and open."""
        for lease in list(self._workers.leases_of_batch(batch)):
            self._workers.close(lease)
        for name, track in self._tracks.items():
            track.forget(batch)
            self.following.drop(name, batch)
        self._blame.give_up(batch)

    def deliver(self) -> int:
        """Take the head batch out and return its number; only when ``ready``."""
        number = self._batches.deliver()
        self._provenance.delivered(number)
        self._blame.forget(number)
        self.following.samples.delivered(number)
        return number

    def clear(self) -> None:
        """Forget every batch and lease (the loop was left). Late answers count as duplicates."""
        self._batches.clear()
        self._workers.clear()
        self._blame.clear()
        self.following.samples.clear()
        self._provenance.clear()
        for track in self._tracks.values():
            track.clear()

    # --- the workers' side --------------------------------------------------------------------

    def join(self, worker: str, teacher: str, called: str | None = None) -> None:
        """A worker of a teacher may pull from now on; ``called``: what people call it, if not the same."""
        self._workers.join(worker, teacher, worker if called is None else called)

    def quarantine(self, worker: str) -> None:
        """A worker gets no work until its next ``lease``, or it is paroled: nothing is kept for it."""
        self._workers[worker].quarantined = True

    def parole(self, worker: str) -> None:
        """A worker that was quarantined may be woken again."""
        self._workers[worker].quarantined = False

    def consumed(self, worker: str) -> int:
        """Labels of a worker that the loop has had, since it joined."""
        return self._provenance.consumed(worker)

    def take_back(self, worker: str, now: float, free: Callable[[int, str], int]) -> TakenBack:
        """Do without a worker: others label again what it labelled, and what it holds (``retired``)."""
        returned = self.give_back(self.leases_of(worker), worker, now)
        parts = self._batches, self._tracks, self._blame, self._provenance
        samples = take_back(*parts, worker, free)
        self.retracted += samples
        return TakenBack(returned, samples, self.consumed(worker))

    def rouse(self, teacher: str, now: float, most_passed_over: int) -> list[str]:
        """Wake sleepers for what waits, the longest sleeper first (see ``Sleepers.rouse``)."""
        return self._leasing.rouse(teacher, now, most_passed_over)

    def rouse_to_hedge(self, teacher: str, now: float, older_than_s: float) -> list[str]:
        """Wake as many sleepers as there are tasks of which each could have one as a second worker."""
        return self._leasing.rouse_to_hedge(teacher, now, older_than_s)

    @property
    def sleepers(self) -> bool:
        """Whether anybody is asleep."""
        return self._leasing.sleepers

    @property
    def served(self) -> set[str]:
        """The teachers that have a worker."""
        return {worker.teacher for _, worker in self._workers}

    def asleep(self, worker: str) -> bool:
        """Whether a worker waits to be woken."""
        return self._leasing.asleep(worker)

    def sleep(self, worker: str, room: int) -> None:
        """A worker with room for so much was told that there is nothing."""
        self._leasing.sleep(worker, room)

    def has_work(self, worker: str, now: float) -> bool:
        """Whether a pull of this worker would be granted something now."""
        return self._leasing.has_work(worker, now)

    def lease(self, worker: str, room: int, now: float) -> list[Grant]:
        """Grant a worker tasks that cost ``room`` together: those that came back first, then fresh cuts.

        With fixed cuts, at least one task is granted if there is any, and else one sample. A task that must
        be leased alone is granted whole, whatever it costs. An empty list means that there is nothing for
        this worker now: it is asleep from now on, unless it gets a ``hedge``.
        """
        return self._leasing.lease(worker, room, now)

    def hedge(self, worker: str, room: int, now: float, older_than_s: float) -> Grant | None:
        """Lease the head batch's oldest open task a second time, to a worker with nothing to do.

        Only when it is older than ``older_than_s`` and than three times the idle worker's own
        latency, has no second lease yet, and fits into ``room``. The first answer wins.
        """
        return self._leasing.hedge(worker, room, now, older_than_s)

    def find(self, lease: int, worker: str, now: float) -> Grant | None:
        """The open lease that a worker answers; None if it was written off, or others were first.

        The None case is an answer to drop, and is counted as a duplicate.
        """
        if (me := self._workers.get(worker)) is not None:
            me.answered(lease, now)
        held = self._workers.find(lease)
        if held is None or held.worker != worker:
            self.duplicates += 1
            return None
        return held.lacking

    def holds(self, lease: int) -> bool:
        """Whether a lease is still open."""
        return self._workers.find(lease) is not None

    def complete(self, lease: int, now: float) -> bool:
        """The labels of an open lease are in place; True when its batch has all labels now."""
        held = self._end(lease)
        self._workers[held.worker].took(now - held.since)
        samples = 0
        ready = False
        for task in held.tasks:
            if task.leases:
                self._workers.overtake(task)
            self._blame.labelled(task)
            self._provenance.add(Labelled.by(held.worker, task))
            samples += task.samples
            self.done += 1
            if self.following:
                ready |= self.following.labelled(held.worker, *task.which)
        return self._batches.settle(held.tasks[0].batch, samples) or ready

    def fail(self, lease: int, error: str, now: float, certain: bool = False) -> Returned:
        """The worker's model raised on an open lease; ``certain``: it says that each attempt would end so."""
        held = self._end(lease)
        self.failed += 1
        witnesses = 1 + self._workers.has_fellows(held.worker) if certain else 0
        for task in held.tasks:
            task.fail(held.worker, error, now, witnesses)
        return self._blame.reconsider(held.tasks, now)

    def refuse(self, lease: int) -> None:
        """Every attempt at an open lease would fail: nobody gets anything of its batch any more."""
        held = self._end(lease)
        self.failed += 1
        self.stall(held.tasks[0].batch)

    def give_back(self, leases: Sequence[int], worker: str, now: float) -> Returned:
        """A worker returns leases that it has not begun, or never got; nobody is to blame."""
        me = self._workers[worker]
        me.stuck = False
        mine = [lease for lease in dict.fromkeys(leases) if lease in me.leases]
        return self._blame.reconsider([task for lease in mine for task in self._end(lease).tasks], now)

    def leases_of(self, worker: str) -> list[int]:
        """The open leases of a worker, oldest first."""
        return list(self._workers[worker].leases)

    def forgive(self, worker: str, now: float) -> None:
        """A lost worker turns out to be the same live process: no task has killed it."""
        leased = {task: None for lease in self._workers.leases() for task in lease.tasks}
        waiting = [task for track in self._tracks.values() for task in track]
        for task in [*leased, *waiting, *self._blame]:
            task.forgive(worker)
        self._blame.reconsider(list(self._blame), now)

    def verdicts(self, now: float) -> list[Poison]:
        """Tasks that are withheld, and the time of whatever speaks against them is up."""
        return self._blame.verdicts(now)

    def lose(self, worker: str, reason: str, now: float) -> Returned:
        """A worker is gone: its leases go back to the front, suspected."""
        tasks: list[Task] = []
        for held in list(self._workers[worker].leases.values()):
            self._workers.close(held)
            what = "only this task" if held.alone else "this task"
            text = f"worker {held.called} was lost while it held {what}: {reason}"
            for task in held.tasks:
                task.suspicions.append(Suspicion(worker, text, held.alone, now + self.flow.verdict_s))
            tasks += held.tasks
        self._part(worker)
        return self._blame.reconsider(tasks, now)

    def leave(self, worker: str, now: float) -> Returned:
        """A worker said goodbye: its leases go back, unsuspected."""
        back = self.give_back(self.leases_of(worker), worker, now)
        self._part(worker)
        return back

    def expire(self, now: float) -> list[Overdue]:
        """Find leases of living workers that pass their deadlines, and offer their tasks to others too."""
        found = []
        for name, me in self._workers:
            late = me.pass_deadlines(self.flow, now)
            if not late:
                continue
            track = self._tracks[me.teacher]
            if track.draining == name:
                track.draining = None  # it will not be empty soon
            returned = self._blame.reconsider([task for lease in late for task in lease.tasks], now)
            held_s, allowed_s = now - late[0].since, me.allowed_s(self.flow)
            found.append(Overdue(name, len(late), held_s, allowed_s, returned))
        return found

    def validate(self, now: float) -> None:
        """Check that all that is known in two places is the same in both."""
        parts = (
            self._batches,
            self._tracks,
            self._workers,
            self._blame,
            self.following.samples,
            self._sleepers,
            self._provenance,
        )
        checks.validate(*parts, now)

    # --- inside -------------------------------------------------------------------------------

    def _end(self, number: int) -> HeldLease:
        """Close an open lease."""
        held = self._workers.find(number)
        assert held is not None
        self._workers.close(held)
        return held

    def _part(self, worker: str) -> None:
        self._leasing.part(worker)
        self._workers.part(worker)
        self._provenance.left(worker)
