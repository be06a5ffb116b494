"""Puts labels in their places: those that workers answer, that equal samples have, or that were found.

All of it happens in the I/O thread, the only one that leases. It ends leases, too, so nobody is given a
sample, and no lease is written off, while its labels are copied. The training thread may forget leases and
batches meanwhile (``Delivery.clear``, ``withdraw``): they are looked up once more after the copy, and labels
of those that are gone are dropped.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from edldist.clock import Clock
from edldist.errors import EdlDistError, LabelError, LabelMemoryError
from edldist.labels.grammar import CodecSpec
from edldist.labels.versions import number_of
from edldist.student.batch import due_errors
from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.label_rows import LabelRows
from edldist.student.queue.coalescing import Follower
from edldist.student.queue.flow import Flow
from edldist.student.queue.outcomes import Grant
from edldist.student.queue.queue import LabelQueue
from edldist.student.queue.wanted import Wanted
from edldist.wire.messages import Result
from edldist.wire.transport import Frames

__all__ = ["Keep", "Placing"]

Keep = Callable[[LabelRows, Sequence[tuple[Grant, OpenBatch, int]]], None]
"""Gets labels before the loop does: the rows of a pass, and of each lease, its batch and its first row."""


class Placing:
    """Writes labels into the buffers of open batches.

    Args:
        changed: the lock of all that follows, and who waits for labels.
        queue, batches: those of the delivery.
        flow: its bounds.
        rolling: teachers whose versions follow each other.
        settle: called under the lock when labels are there; with whether a batch has all of its own.
        fail_batch: called under the lock for a batch that gets no labels: its number, why, and whether it is
            handed on as it is.
        hand_on: whether a batch for whose labels there is no memory is.
    """

    def __init__(
        self,
        changed: threading.Condition,
        queue: LabelQueue,
        batches: Mapping[int, OpenBatch],
        flow: Flow,
        clock: Clock,
        rolling: Collection[str],
        settle: Callable[[bool], None],
        fail_batch: Callable[[int, EdlDistError, bool], None],
        hand_on: bool,
    ) -> None:
        self._changed = changed
        self._queue = queue
        self._batches = batches
        self._flow = flow
        self._clock = clock
        self._rolling = rolling
        self._settle = settle
        self._fail_batch = fail_batch
        self._hand_on = hand_on

    def answer(
        self, worker: str, result: Result, frames: Frames, own_memory: bool, keep: Keep | None
    ) -> list[tuple[int, str]]:
        """Put the labels of a forward pass in their places, and complete their leases.

        Answers to leases that are not open any more are dropped and counted. A batch for whose labels this
        rank has no memory is nobody's fault: no worker gets it any more, and the loop gets the error when the
        batch is due.

        Args:
            own_memory: the frames may become the batch's labels; else they are copied.
            keep: gets those that were placed.

        Returns:
            The leases whose labels cannot be used, and why.
        """
        with self._changed:
            now = self._clock.monotonic()
            found = [self._queue.find(row.lease, worker, now) for row in result.rows]
            batches = [self._batches[grant.batch] if grant is not None else None for grant in found]
        if not any(found):
            return []
        refused: list[tuple[int, str]] = []
        placed: list[tuple[Grant, int]] = []
        kept: list[tuple[Grant, OpenBatch, int]] = []
        try:
            # A frame lies at any address, and what a loop computes depends on it in the last bits.
            own = own_memory and not self._flow.fixed
            rows = LabelRows(result.tensors, frames, sum([row.count for row in result.rows]), own)
        except LabelError as exc:
            return [(grant.lease, str(exc)) for grant in found if grant is not None]
        first = 0
        for row, grant, batch in zip(result.rows, found, batches, strict=True):
            if grant is not None and batch is not None:
                try:
                    if result.codec != batch.codec:
                        raise LabelError(_other_codec(result.codec, batch.codec))
                    version = number_of(result.version) if grant.teacher in self._rolling else None
                    placed.append((grant, batch.put(grant, rows, first, row.count, version)))
                    kept.append((grant, batch, first))
                except LabelError as exc:
                    refused.append((grant.lease, str(exc)))
                except LabelMemoryError as exc:
                    self._stall(grant, exc)
            first += row.count
        if keep is not None and kept:
            keep(rows, kept)
        self._complete(placed)
        return refused

    def found(
        self, teacher: str, batch: OpenBatch, had: Wanted, rows: LabelRows, version: int | None
    ) -> None:
        """Put labels in their places that were found of samples that nobody was given yet.

        Args:
            had: these samples, whose rows follow each other.
        """
        try:
            made = batch.place_found(teacher, had, rows, version)
        except (LabelError, LabelMemoryError):
            return  # they are not like those that workers sent: workers label these samples, too
        with self._changed:
            if self._batches.get(batch.number) is not batch:
                return  # the loop was left meanwhile
            self._queue.grow(batch.number, made)
            following = self._queue.following
            self._copy(teacher, following.of_found(teacher, batch.number, had))
            lacking = [
                sample
                for start, stop in following.uncut(teacher, batch.number)
                for sample in range(start, stop)
            ]
            for start, stop in had.runs:
                lacking = [sample for sample in lacking if not start <= sample < stop]
            self._settle(following.found(teacher, batch.number, had, had.only(lacking)))

    def _complete(self, placed: Iterable[tuple[Grant, int]]) -> None:
        with self._changed:
            now = self._clock.monotonic()
            ready = False
            for grant, made in placed:
                # The loop may have been left while the labels were copied; one lease may come twice.
                if self._queue.holds(grant.lease):
                    self._queue.grow(grant.batch, made)
                    if self._queue.following:
                        self._copy(grant.teacher, self._queue.following.of(grant))
                    ready |= self._queue.complete(grant.lease, now)
            self._settle(ready)

    def _copy(self, teacher: str, followers: Iterable[Follower]) -> None:
        """Give followers the labels of those that they follow; under the lock, since they are few."""
        for place, leader in followers:
            batch = self._batches[place.batch]
            try:
                made = batch.copy(teacher, place.sample, self._batches[leader.batch], leader.sample)
            except (LabelError, LabelMemoryError):
                # Not like the batch's other labels, or no memory: a worker's answer shows which.
                self._queue.following.excuse(teacher, place)
            else:
                self._queue.grow(place.batch, made)

    def _stall(self, grant: Grant, error: LabelMemoryError) -> None:
        with self._changed:
            if not self._queue.holds(grant.lease):
                return  # the loop was left meanwhile
            queue, bound = self._queue, self._flow.max_bytes
            queue.stall(grant.batch)
            due = due_errors.no_memory(grant, error, queue.open_batches, queue.nbytes, bound)
            self._fail_batch(grant.batch, due, self._hand_on)


def _other_codec(came: CodecSpec | None, asked: CodecSpec | None) -> str:
    its, wanted = (str(codec or "that of its group") for codec in (came, asked))
    return f"labels came in codec {its}, and were asked for in {wanted}"
