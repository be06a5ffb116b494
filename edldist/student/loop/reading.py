"""Reading a data loader ahead of the training loop: this epoch, then the first batches of the next."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from edldist.errors import ConfigError, LoaderClosedError
from edldist.lifecycle import readers
from edldist.ranks.collectives import collectives_begun
from edldist.ranks.placement import placement
from edldist.sampling.choice import position_of
from edldist.sampling.composition import reads_together
from edldist.sampling.draws import DataDraws
from edldist.sampling.look_ahead import obstacle_ahead
from edldist.sampling.position import Mark, Position
from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.teacher_inputs import TeacherInputs
from edldist.student.inputs.inputs import InputsByTeacher, Seen, TeacherInputSelector
from edldist.student.inputs.route import Route
from edldist.student.loop.broken_reads import end_workers
from edldist.student.loop.gradient_state import reading_unseen
from edldist.student.memory.borrowed import WHOLE_BYTES, Borrowed
from edldist.student.memory.containers import Taken, copied, hanging_on, taken_over
from edldist.student.memory.descriptors import explained, keep_few
from edldist.student.memory.leaves import Leaf, leaves
from edldist.student.memory.ownership import unshared
from edldist.student.memory.to_device import Allocate

__all__ = ["ReadAhead", "Source"]

logger = logging.getLogger(__name__)


class _Out(NamedTuple):
    """A batch that was read and that the loop has not had yet: how it looked, and what it keeps open."""

    looks: Borrowed
    descriptors: int


class Source:
    """One epoch of a data loader while it is read.

    Attributes:
        out: batches that were read and that the loop has not had yet, oldest first.
        reads: how often the data loader was asked for a batch.
        ended: whether there is nothing more to read, because of ``error`` if that is set.
    """

    __slots__ = ("_items", "ended", "error", "out", "reads")

    def __init__(self, items: Iterator[tuple[Any, Mark]]) -> None:
        self._items = items
        self.out: deque[_Out] = deque()
        self.reads = 0
        self.ended = False
        self.error: Exception | None = None

    def read(self) -> tuple[Any, Mark] | None:
        """The next batch; None at the end of the epoch."""
        item = next(self._items, None)
        self.reads += 1
        self.ended = item is None
        return item

    def fail(self, error: Exception) -> None:
        """Reading ends here; the batches before are delivered first."""
        self.ended = True
        self.error = error

    def drop(self) -> None:
        """Let go of the iterator and of what was read, in the thread of who reads.

        An error leads to the frames that it came through, and they lead here: kept, it would keep all of
        them in a circle, for a garbage collector to find in whichever thread that runs.
        """
        self._items = iter(())
        self.out.clear()
        self.ended = True
        self.error = None


class ReadAhead:
    """Reads for one loop, in its thread, inside its ``next``: errors and random draws stay where they belong.

    Pure as to labels: it hands batches to whoever wants them and is told which ones were consumed.

    Args:
        data_loader: what is read.
        inputs: which part of a batch the teachers see.
        epochs: how many epochs the script runs, from 0 on. Each but the last is followed by the first
            batches of the next as soon as it is read to its end, unless the data loader forbids that
            (see ``obstacle_ahead``), and none follows the last. None: no epoch is read before its loop, and
            there is no last one.
        allocate: makes the label buffers of its batches (see ``OpenBatch``).
        weights_agreed: whether the ranks agree in every step on how many samples they have.
        copy_batches: whether batches are copied when they are read (see ``borrowed``).
        teachers: names of those that label.
        lock_step: whether the data loader does collectives while it is read. None: if it is known to. One
            that turns out to is not read any further.
        route: to which of the teachers each sample goes; None: to all of them.

    Attributes:
        epochs: as given.
        lock_step: whether all ranks have to read at the same points of their loops, whatever labels come.
        select: picks what teachers see of a batch.

    Raises:
        ConfigError: ``inputs`` or ``epochs`` cannot be.
    """

    def __init__(
        self,
        data_loader: Iterable[Any],
        inputs: InputsByTeacher = None,
        epochs: int | None = None,
        allocate: Allocate | None = None,
        weights_agreed: bool = False,
        copy_batches: bool = False,
        teachers: Sequence[str] = ("teacher",),
        lock_step: bool | None = None,
        route: Route | None = None,
    ) -> None:
        if epochs is not None and (not isinstance(epochs, int) or isinstance(epochs, bool) or epochs < 1):
            raise ConfigError(
                f"epochs={epochs!r}: use the number of epochs that the script runs, 1 or more, or None"
            )
        self.select = select = TeacherInputSelector(inputs, teachers, route)
        self._draws = DataDraws()
        self.position: Position = position_of(
            data_loader, self._draws.reseed, lambda batch: select(batch).samples, weights_agreed
        )
        self._allocate = allocate
        self._copy_batches = copy_batches
        self._data_loader = data_loader
        self.epochs = epochs
        self._epochs = epochs or 0
        self.lock_step = reads_together(data_loader) if lock_step is None else lock_step
        self._watched = lock_step is None and not self.lock_step
        self._further = False  # the next epoch is read although nobody said that it will come
        self._current: Source | None = None
        self._next: Source | None = None
        if self._epochs > 1 and (obstacle := obstacle_ahead(data_loader)) is not None:
            self._epochs = 0
            logger.warning(
                "the data loader (%s) is not read beyond the end of an epoch, so the first labels of the "
                "next have to be waited for: %s",
                type(data_loader).__name__,
                obstacle,
            )

    # --- epochs -----------------------------------------------------------------------------------

    @property
    def in_epoch(self) -> bool:
        """Whether an epoch was begun and not ended."""
        return self._current is not None

    @property
    def consumed(self) -> bool:
        """Whether an epoch was begun, and the loop had all of it, whether it was told so or not."""
        current = self._current
        return current is not None and current.ended and current.error is None and not current.out

    @property
    def holds_next(self) -> bool:
        """Whether the next epoch is being read, and expected."""
        return self._next is not None and not self._further

    @property
    def over(self) -> bool:
        """Whether the script has had all of its epochs, so that none is to begin. No epoch runs.

        One that was left early counts as had: the position moves behind it, as at the start of the next.
        """
        if self.epochs is None or self.position.epoch + 1 < self.epochs:
            return False
        self.position.settle()
        return self.position.epoch >= self.epochs

    def begin(self) -> bool:
        """Begin an epoch with what was read of it ahead, if that is still the epoch that is due.

        Where it is not, ``drop`` what there is, and ``start``.
        """
        self._draws.begin()
        if self._next is None or not self.position.enter_next():
            return False
        self._current, self._next = self._next, None
        return True

    def start(self) -> None:
        """Begin an epoch where the position is."""
        with self._draws.apart(), reading_unseen():
            self._current = Source(self.position.start())

    def end(self) -> None:
        """All of this epoch was consumed; what was read of the next one stays."""
        self.position.end_epoch()
        self._current = None

    def drop(self) -> int:
        """Forget everything that was read; returns how many batches the loop never had."""
        sources = [source for source in (self._current, self._next) if source is not None]
        dropped = sum(len(source.out) for source in sources)
        for source in sources:
            source.drop()
        self._current = self._next = None
        self._further = False
        return dropped

    # --- batches ----------------------------------------------------------------------------------

    @property
    def _running(self) -> Source:
        if self._current is None:
            raise LoaderClosedError("this DistillLoader was closed in the middle of its loop; make a new one")
        return self._current

    @property
    def outstanding(self) -> int:
        """Batches that were read, of this epoch and the next, and that the loop has not had."""
        return len(self._running.out) + (0 if self._next is None else len(self._next.out))

    @property
    def ended(self) -> bool:
        """Whether the loop had everything of this epoch.

        Raises:
            Exception: what ended the reading, once the batches before it were taken.
        """
        current = self._running
        if not current.ended or current.out:
            return False
        if current.error is not None:
            raise current.error
        return True

    @property
    def more(self) -> bool:
        """Whether there is anything to read now."""
        current = self._running
        if not current.ended:
            return True
        if self._next is not None:
            return not self._next.ended
        return current.error is None and (self.position.epoch + 1 < self._epochs or self._further)

    def read_further(self) -> bool:
        """Go on with the next epoch for the sake of a batch that this one lacks, whoever expects that epoch.

        What is read of it is not kept beyond the end of this epoch.

        Returns:
            Whether that is possible, and was not done yet.
        """
        current = self._running
        if (
            self._next is not None
            or current.error is not None
            or obstacle_ahead(self._data_loader) is not None
        ):
            return False
        self._further = True
        return True

    def fill(self, wants: Callable[[], bool], offer: Callable[[OpenBatch], None]) -> None:
        """Read as long as batches are wanted, and hand each of them on."""
        if not (self.more and wants()):
            return
        with self._draws.apart(), reading_unseen():
            watching = self._watched and collectives_begun() is not None
            while True:
                current = self._running
                if not current.ended:
                    self._read(current, offer, watching)
                elif self._next is not None:
                    self._read(self._next, offer, watching)
                else:
                    self._next = self._opened()
                    if current.out:
                        # Worker processes start to load now; do not wait for them with labels in hand.
                        return
                if not (self.more and (wants() or self._looks)):
                    return

    def at_end(self, offer: Callable[[OpenBatch], None]) -> bool:
        """Whether the loop has had the last batch of this epoch; reads one more if that is not known."""
        current = self._running
        if not current.ended and not current.out:
            self.fill(lambda: not current.ended and not current.out, offer)
        return current.ended and not current.out and current.error is None

    def take(self) -> None:
        """The loop gets one more batch of this epoch.

        Raises:
            InputError: its memory was written to since it was read.
        """
        self._running.out.popleft().looks.check()

    def _all_out(self) -> Iterator[_Out]:
        return (out for source in (self._current, self._next) if source is not None for out in source.out)

    def _descriptors(self) -> int:
        return sum(out.descriptors for out in self._all_out())

    def _opened(self) -> Source:
        try:
            return Source(self.position.start_next())
        except Exception as exc:
            # The next epoch's error is raised in the next epoch.
            end_workers(exc)
            failed = Source(iter(()))
            failed.fail(exc)
            return failed

    @property
    def _looks(self) -> bool:
        """Whether one more batch is read to see if that does collectives, before the loop does its own."""
        current = self._running
        return self._watched and current.reads == 1 and not current.ended and placement().world_size > 1

    def _check_apart(self, source: Source, collectives: int | None) -> None:
        """Refuse a data loader that meets those of other ranks whenever it is asked for a batch.

        To meet them once is fine: all ranks begin an epoch at the same point of their loops.
        """
        if source.reads < 2 or collectives == collectives_begun():
            return
        raise ConfigError(
            f"the data loader ({type(self._data_loader).__name__}) does collectives while it is read. How "
            "far it is read ahead depends on how fast labels come: the ranks would meet in different ones, "
            "and hang. Pass lock_step=True, which reads all of them at the same points of their loops, or a "
            "data loader that reads on every rank by itself (with Accelerate: dispatch_batches=False)"
        )

    def _read(self, source: Source, offer: Callable[[OpenBatch], None], watching: bool) -> None:
        try:
            collectives = collectives_begun() if watching else None
            with readers.reading():
                item = source.read()
            if watching:
                self._check_apart(source, collectives)
            if item is None:
                return
            batch, mark = item
            del item  # whoever holds a batch beside this name may write to it
            if self._copy_batches:
                batch = copied(batch)
                batch, parts, left, hidden = Taken(batch, leaves(batch), [], hanging_on(batch))
            else:
                batch, parts, left, hidden = taken_over(batch)
            kept, descriptors = keep_few(batch, parts, self._descriptors)
            if kept is not batch:
                batch, parts = kept, leaves(kept)
            del kept
            visible = len(parts)
            if hidden:
                known = {id(part) for part in parts}
                parts.extend(part for part in hidden if id(part) not in known)
                hidden.clear()  # what refers to a part is counted
            ours = unshared(parts, WHOLE_BYTES + 1)
            seen = self.select(batch)
            self.position.check(mark, seen.samples)
            if beside := _seen_beside(parts, seen):
                ours |= unshared(beside, WHOLE_BYTES + 1)
            # What was copied is nobody else's, unless a callable made more of it.
            looks = Borrowed(beside if self._copy_batches else [*parts, *beside], ours, left)
            if looks.on_accelerators:
                looks.check_apart(out.looks for out in self._all_out())
            apart = {teacher: TeacherInputs(*part) for teacher, part in seen.apart.items()}
            beyond = parts[visible:]
            beyond += [part for holder in left for part in holder.tensors]
            offer(OpenBatch(batch, seen.tensors, seen.samples, mark, self._allocate, apart, beyond))
            source.out.append(_Out(looks, descriptors))
        except Exception as exc:
            # The batches before the bad one are delivered first.
            end_workers(exc)
            source.fail(explained(exc))


def _seen_beside(parts: Sequence[Leaf], seen: Seen) -> list[Leaf]:
    """What teachers see that is no part of the batch."""
    known = {*map(id, parts)}
    beside: list[Leaf] = [tensor for tensor in seen.tensors.values() if id(tensor) not in known]
    for part in seen.apart.values():
        beside += [tensor for tensor in part[0].values() if id(tensor) not in known]
    return beside
