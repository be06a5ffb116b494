"""What the training loop and the student's I/O thread share: the queue and the open batches.

One lock guards all of it, held only for bookkeeping. The I/O thread copies labels to their places without
the lock. It is also the thread that ends leases, so none ends while its labels are copied, unless the
training thread leaves its loop (``clear``) or wants no labels of a batch any more (``withdraw``). So the I/O
thread looks a lease up once more after the copy, and drops labels whose lease is gone.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Sequence, Set
from dataclasses import replace

from edldist.clock import Clock
from edldist.errors import EdlDistError
from edldist.observe.stages import StageClock
from edldist.student.batch import due_errors
from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.label_rows import LabelRows
from edldist.student.batch.leased import Leased
from edldist.student.queue.flow import Flow
from edldist.student.queue.outcomes import Overdue, Returned, TakenBack
from edldist.student.queue.queue import LabelQueue
from edldist.student.queue.wanted import Wanted
from edldist.student.service.job.account import Account
from edldist.student.service.job.needs import Backlog
from edldist.student.service.placing import Keep, Placing
from edldist.tracing.kinds import Kind
from edldist.tracing.tape import Tape
from edldist.wire.messages import Result, Scalar
from edldist.wire.transport import Frames

__all__ = ["Delivery"]

_MOST_PASSED_OVER = 32  # sleepers in one turn for whom nothing that waits is suitable


class Delivery:
    """Batches on their way from the data loader to the training loop.

    Workers are known by the queue's names for them. One that pulled when there was nothing for it is
    *asleep* until ``rouse`` names it.

    Args:
        teachers: names of the teacher groups whose labels every batch needs.
        flow: the queue's bounds.
        clock: of the time spent with a full queue.
        first_lease: leases count up from here.
        max_frame_bytes: largest input frame that may travel.
        skip_poison: deliver a batch whose tasks are poison without labels instead of raising.
        rolling: teachers whose versions follow each other.
        hand_on: deliver every batch that has no labels, whatever the reason, instead of raising.
        tape: where it is written down what becomes of batches, while somebody traces; under the lock.
    """

    def __init__(
        self,
        teachers: Sequence[str],
        flow: Flow,
        clock: Clock,
        first_lease: int,
        max_frame_bytes: int,
        skip_poison: bool,
        rolling: Collection[str] = (),
        hand_on: bool = False,
        tape: Tape | None = None,
    ) -> None:
        self._teachers = teachers
        self._flow = flow
        self._clock = clock
        self._max_frame_bytes = max_frame_bytes
        self._skip_poison = skip_poison or hand_on
        self._hand_on = hand_on
        # A loop that was forgotten may be found as garbage while its thread is in here, and clears.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._queue = LabelQueue(teachers, flow, first_lease)
        # Invariant: these are the queue's batches, in its order, and it counts the bytes that they hold.
        self._open: dict[int, OpenBatch] = {}
        self._error: BaseException | None = None
        # Invariant: none of them has a worker in the queue, so nobody places labels of theirs.
        self._missing: frozenset[str] = frozenset()
        self._came: set[str] = set()
        self._rolling = frozenset(rolling)
        self._oldest: dict[str, int] = {}  # of rolling teachers, the oldest version that is taken
        self._tape = tape or Tape(clock.monotonic)
        self._figures = Account(self._queue, self._tape)
        self._placing = Placing(
            *(self._changed, self._queue, self._open, flow, clock, self._rolling),
            *(self._settle, self._fail_batch, hand_on),
        )
        self.stages = {"answer": self._queue.answering, "buffer": StageClock()}
        """How long answers to tasks take, and batches on their way from ``offer`` to ``deliver``; others may
        add theirs."""

    # --- the trainer's thread -----------------------------------------------------------------

    def wants_batch(self) -> bool:
        with self._lock:
            return self._queue.wants_batch()

    def offer(self, batch: OpenBatch) -> bool:
        """Append a batch to the queue.

        Returns:
            Whether workers sleep, and there is something for them.

        Raises:
            InputError: a task of it would not fit into a frame.
        """
        wanted: dict[str, Wanted] = {}
        for teacher in self._teachers:
            batch.inputs_of(teacher).fit_frames(self._flow, self._max_frame_bytes)
            wanted[teacher] = batch.wanted_of(teacher)
        with self._lock:
            keys = None
            if batch.lookups:
                self._forget_stale(batch, wanted)
                keys = {teacher: lookup.texts for teacher, lookup in batch.lookups.items()}
            batch.number = number = self._queue.offer(batch.samples, batch.nbytes, wanted, keys)
            if made := batch.label_bytes:
                self._queue.grow(number, made)
            self._open[number] = batch
            batch.offered_at = now = self._account()
            if self._tape.on:
                self._tape.write(Kind.QUEUED, now, now, number, batch.samples, batch.nbytes)
            return self._queue.sleepers and any([one.runs for one in wanted.values()])

    def _forget_stale(self, batch: OpenBatch, wanted: dict[str, Wanted]) -> None:
        """Labels that were found may be of a version that is not taken any more since a moment ago."""
        for teacher, oldest in self._oldest.items():
            if batch.has_older(teacher, oldest):
                batch.forget(teacher)
                wanted[teacher] = batch.wanted_of(teacher)

    def wait(self, timeout_s: float, reading: bool) -> bool:
        """Wait until the head batch is ready, or the data loader should be read, or time is up.

        Args:
            reading: whether the data loader has more; if not, only a ready batch ends the wait.

        Returns:
            Whether the head batch is ready.

        Raises:
            EdlDistError: what ended the service, or made a task of the head batch poison.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._queue.ready() or self._failure() or (reading and self._queue.wants_batch()),
                timeout_s,
            )
            if self._queue.ready():
                return True
            failure = self._failure()
            try:
                if failure is not None:
                    raise failure
            finally:
                del failure  # an error that its own frame holds is left to a garbage collector
            return False

    def _failure(self) -> BaseException | None:
        head = self._queue.head
        return self._error or (None if head is None else self._open[head].error)

    def deliver(self, mark: object = None) -> OpenBatch | None:
        """Take the head batch out, if it has this mark where one is given; None while it lacks labels."""
        with self._lock:
            if not self._queue.ready() or (mark and next(iter(self._open.values())).mark is not mark):
                return None
            batch = self._open.pop(self._queue.deliver())
            self._pass_over()
            now = self._account()
            self.stages["buffer"].took(now - batch.offered_at)
            if self._tape.on:
                self._tape.write(Kind.DELIVERED, now, now, batch.number, batch.samples)
            return batch

    def clear(self) -> None:
        """Forget all batches: the loop was left."""
        with self._lock:
            self._queue.clear()
            dropped = list(self._open.values())
            self._open.clear()
            self._account()
        for batch in dropped:
            batch.let_go()

    def labelled(self) -> list[OpenBatch]:
        """The batches that the loop could take now."""
        with self._lock:
            return list(self._open.values())[: self._queue.deliverable_batches]

    def withdraw(self, mark: object) -> None:
        """Nobody wants the labels of a batch any more: it is delivered in its turn, whatever it has."""
        with self._lock:
            for number in [number for number, batch in self._open.items() if batch.mark is mark]:
                self._queue.abandon(number)
            self._account()

    def stats(self) -> dict[str, Scalar]:
        """Figures of the queue."""
        with self._lock:
            return self._figures.stats(self._clock.monotonic())

    def backlog(self) -> Backlog:
        """The open batches, and what each teacher has to do with them."""
        with self._lock:
            return self._figures.backlog(list(self._open.values()), self._teachers)

    def ease(self, credits: int | None, waits: bool) -> None:
        """Read so much ahead at most, or nothing new. Fixed cuts are read as the loop goes, whatever is."""
        if not self._flow.fixed:
            with self._changed:
                self._flow.easing.credits, self._flow.easing.waits = credits, waits
                self._changed.notify_all()

    # --- the I/O thread: workers come and go ----------------------------------------------------

    def join(self, worker: str, teacher: str, called: str | None = None, *, forgiven: bool) -> None:
        """A worker of a teacher may pull; ``forgiven`` if its own process was taken for lost before."""
        with self._lock:
            if forgiven:
                self._queue.forgive(worker, self._clock.monotonic())
            self._queue.join(worker, teacher, called)
            self._missing -= {teacher}
            self._came.add(teacher)

    def retire(self, teacher: str, oldest: int) -> None:
        """Ask once more for labels of versions of a teacher before the oldest that is taken.

        That is those of batches that the loop has not had, nor are on their way to its device.
        """
        with self._changed:
            if teacher in self._rolling:
                self._oldest[teacher] = oldest
            for number, batch in self._open.items():
                if teacher in batch.passed_over or not batch.has_older(teacher, oldest):
                    continue
                wanted = batch.inputs_of(teacher).wanted
                again = self._queue.ask_again(number, teacher, wanted, batch.bytes_of(teacher))
                if again is not None:
                    batch.forget(teacher)
                    self._figures.stale += again
            self._account()

    def came(self) -> Set[str]:
        """The groups of which a worker has joined since this was asked last; it may be gone again."""
        with self._lock:
            came, self._came = self._came, set()
            return came

    def miss(self, teachers: frozenset[str]) -> None:
        """Let batches go on without the labels of groups that have no worker, until one of theirs joins."""
        with self._changed:
            self._missing = teachers
            if self._pass_over():
                self._account()
                self._changed.notify_all()

    def lose(self, worker: str, reason: str) -> Returned:
        """A worker is gone: its tasks go back, suspected."""
        with self._lock:
            return self._settled(self._queue.lose(worker, reason, self._clock.monotonic()))

    def leave(self, worker: str) -> Returned:
        """A worker goes on purpose: its tasks go back, unsuspected."""
        with self._lock:
            return self._settled(self._queue.leave(worker, self._clock.monotonic()))

    def asleep(self, worker: str) -> bool:
        with self._lock:
            return self._queue.asleep(worker)

    def sleep(self, worker: str, room: int) -> None:
        """A worker with room for so much was told that there is nothing for it."""
        with self._lock:
            self._queue.sleep(worker, room)

    def quarantine(self, worker: str, room: int) -> None:
        """A worker with room for so much was told that it gets nothing for a while."""
        with self._lock:
            self._queue.sleep(worker, room)
            self._queue.quarantine(worker)

    def put_aside(self, worker: str, room: int) -> TakenBack:
        """Quarantine a worker, and do without the labels of it that the loop has not had yet."""
        with self._lock:
            self.quarantine(worker, room)
            now = self._clock.monotonic()
            taken = self._queue.take_back(worker, now, lambda number, name: self._open[number].free(name))
            self._settled(taken.returned)
            self._account()
            return taken

    def consumed(self, worker: str) -> int:
        """Labels of a worker that the loop has had, since it joined."""
        with self._lock:
            return self._queue.consumed(worker)

    def parole(self, worker: str) -> None:
        """A worker that was quarantined may be woken again."""
        with self._lock:
            self._queue.parole(worker)

    def rouse(self, hedge_after_s: float, thorough: bool) -> list[str]:
        """Take as many workers for awake as there is work for: they are to be told.

        Args:
            hedge_after_s: age from which a task may be leased a second time (see ``LabelQueue.hedge``).
            thorough: whether to look at every sleeper, and for second leases. What this costs grows with the
                number of those for whom there is nothing, so it is not for every turn.
        """
        with self._lock:
            queue = self._queue
            if not queue.sleepers:
                return []
            now = self._clock.monotonic()
            woken: list[str] = []
            for teacher in self._teachers:
                woken += queue.rouse(teacher, now, sys.maxsize if thorough else _MOST_PASSED_OVER)
                if thorough:
                    woken += queue.rouse_to_hedge(teacher, now, hedge_after_s)
            return woken

    # --- the I/O thread: leases -----------------------------------------------------------------

    def lease(self, worker: str, room: int, hedge_after_s: float) -> Leased:
        """Grant tasks that cost ``room``, or a second lease on an old task; with nothing, it sleeps."""
        with self._changed:
            queue, now = self._queue, self._clock.monotonic()
            grants = queue.lease(worker, room, now)
            if not grants:
                second = queue.hedge(worker, room, now, hedge_after_s)
                grants = [second] if second is not None else []
            if queue.wants_batch():
                self._changed.notify_all()
            return Leased(grants, [self._open[grant.batch] for grant in grants], queue.deliverable_batches)

    def place(
        self, worker: str, result: Result, frames: Frames, own_memory: bool, keep: Keep | None = None
    ) -> list[tuple[int, str]]:
        """Put the labels of a forward pass in their places, and complete their leases (see ``Placing``)."""
        return self._placing.answer(worker, result, frames, own_memory, keep)

    def uncut(self, teacher: str) -> list[tuple[OpenBatch, list[tuple[int, int]]]]:
        """Open batches of which nobody was given all of a teacher yet, and what that is of each."""
        with self._lock:
            pieces = {number: self._queue.following.uncut(teacher, number) for number in self._open}
            return [(self._open[number], its) for number, its in pieces.items() if its]

    def found(
        self, teacher: str, batch: OpenBatch, had: Wanted, rows: LabelRows, version: int | None
    ) -> None:
        """Labels were found of samples that nobody was given yet (see ``Placing``)."""
        self._placing.found(teacher, batch, had, rows, version)

    def count_late(self, leases: int) -> None:
        """Answers came from a worker that was written off."""
        with self._lock:
            self._queue.duplicates += leases
            self._queue.late += leases

    def fail(
        self, worker: str, lease: int, error: str, *, final: bool = False, certain: bool = False
    ) -> Returned | None:
        """The model raised on a lease; None if that is not open any more (then it counts as late).

        Args:
            final: nobody else gets anything of the batch; the error is due with it, skipping or not.
            certain: a worker says that every attempt would end so: another one has to say it, too.
        """
        with self._lock:
            now = self._clock.monotonic()
            grant = self._queue.find(lease, worker, now)
            if grant is None:
                return None
            if final:
                self._queue.refuse(lease)
                due = due_errors.refused(self._open[grant.batch], grant, error)
                self._fail_batch(grant.batch, due, self._hand_on)
                return Returned(0, [])
            return self._settled(self._queue.fail(lease, error, now, certain))

    def give_back(self, worker: str, leases: Sequence[int]) -> Returned:
        """Leases come back without blame: a worker drains, or a connection swallowed them."""
        with self._lock:
            return self._settled(self._queue.give_back(leases, worker, self._clock.monotonic()))

    def expire(self) -> list[Overdue]:
        """Offer tasks to others too whose workers live and have not answered in time."""
        with self._lock:
            found = self._queue.expire(self._clock.monotonic())
            return [replace(overdue, returned=self._settled(overdue.returned)) for overdue in found]

    def verdicts(self) -> Returned:
        """Give up on tasks that stay accused of killing workers when their time is up."""
        with self._lock:
            return self._settled(Returned(0, self._queue.verdicts(self._clock.monotonic())))

    def leases_of(self, worker: str) -> frozenset[int]:
        with self._lock:
            return frozenset(self._queue.leases_of(worker))

    @property
    def buffered(self) -> int:
        """Number of batches that the loop could take now."""
        with self._lock:
            return self._queue.deliverable_batches

    def stop(self, error: BaseException) -> None:
        """Raise an error in the loop, now and from now on."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def validate(self) -> None:
        """Check that queue and batches agree; for tests, while nobody places labels."""
        with self._lock:
            self._queue.validate(self._clock.monotonic())
            assert list(self._open) == self._queue.numbers
            held = sum(batch.nbytes + batch.label_bytes for batch in self._open.values())
            assert self._queue.nbytes == held
            assert self._missing.isdisjoint(self._queue.served)

    # --- under the lock -------------------------------------------------------------------------

    def _settle(self, ready: bool) -> None:
        """Labels were placed; ``ready``: a batch has all of its own now."""
        if self._pass_over() or ready:
            self._changed.notify_all()
        self._account()

    def _pass_over(self) -> bool:
        """Let the head go on without groups that are missing, if it lacks nothing else, and has some labels.

        Only the head, so that all others have their labels if the group comes back meanwhile.

        Returns:
            Whether it does.
        """
        queue = self._queue
        if not self._missing or queue.head is None or queue.ready():
            return False
        lacking, batch = queue.lacks_only(self._missing), self._open[queue.head]
        if not lacking or not batch.labelled - lacking:
            return False
        queue.pass_over(lacking)
        batch.passed_over = lacking
        return True

    def _settled(self, outcome: Returned) -> Returned:
        """Give up on poison, as the job asks for; what is given up is told by positions in the batch."""
        poison = [
            replace(each, samples=self._open[each.batch].inputs_of(each.teacher).in_batch(each.samples))
            for each in outcome.poison
        ]
        for each in poison:
            self._fail_batch(each.batch, due_errors.poisoned(each), self._skip_poison)
        return replace(outcome, poison=poison) if poison else outcome

    def _fail_batch(self, number: int, error: EdlDistError, hand_on: bool) -> None:
        """Raise an error when a batch is due without labels, or hand it on as it is."""
        batch = self._open[number]
        if hand_on:
            batch.failure = batch.failure or error
            self._queue.abandon(number)
        else:
            batch.error = batch.error or error
        self._changed.notify_all()

    def _account(self) -> float:
        """Note whether the queue is full; the time of now."""
        now = self._clock.monotonic()
        self._figures.note(now)
        return now
