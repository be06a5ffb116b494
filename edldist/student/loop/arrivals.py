"""What the training loop gets next: the batch that is due, with its labels, where the loop wants them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Set
from typing import Any, NamedTuple

import torch

from edldist.clock import Clock
from edldist.errors import EdlDistError
from edldist.labels.grammar import CodecSpec
from edldist.lifecycle import stopping
from edldist.student.batch.batch import OpenBatch
from edldist.student.decoding.decoding import Decoding, NoLabels, Packed
from edldist.student.loop.figures import LoopFigures
from edldist.student.loop.reading import ReadAhead
from edldist.student.loop.waiting import LabelWait
from edldist.student.memory.structure import mapped
from edldist.student.memory.to_device import DeviceTransfer
from edldist.student.service.service import StudentService
from edldist.student.service.trail import LOOP
from edldist.tracing.kinds import Kind

__all__ = ["Arrival", "Arrivals"]

logger = logging.getLogger(__name__)

_MOST_IN_A_ROW = 32

Pair = tuple[Any, dict[str, Any]]
"""What the loop gets: a batch and its labels."""


class Arrival(NamedTuple):
    """A batch that is due, and what the loop gets of it: None if it could not be labelled."""

    batch: OpenBatch
    pair: Pair | None


class Arrivals:
    """Reads the data loader, waits for labels and brings both to the device, one batch after the other.

    ::

        data loader --read--> queue --labelled--> on its way to the device --due--> the loop

    Two kinds of batch have no labels of their own, and need another batch that has some. Which that is, in
    this order: one that the loop had; the first labelled one behind it, which is waited for; one of the next
    epoch, if this one has no more.

    * An *empty* one gets labels without rows, under the names and dtypes of the other's. So does one of
      which a teacher sees no samples, of that teacher.
    * One that *could not be labelled*, where the loop has to take a step all the same, is replaced by the
      other (``stand_in``). It is not used itself, because what spoiled it might spoil the student too.

    Owned by the thread of the training loop.

    Args:
        ahead: reads the data loader.
        service: gets labels.
        transfer: brings them to the device.
        figures: gets the time spent waiting.
        clock: of that time.
        decoding: makes of the tensors that came what the loop gets.
        keep_stand_in: whether the batch that the loop had last is kept for ``stand_in``.
        depth: how many batches are open where reading is in lock step: as many as the loop has asked for, and
            this many more.
        looked_up: is told of each batch that was looked up in a store, before it is offered.
    """

    def __init__(
        self,
        ahead: ReadAhead,
        service: StudentService,
        transfer: DeviceTransfer,
        figures: LoopFigures,
        clock: Clock,
        decoding: Decoding,
        keep_stand_in: bool,
        depth: int,
        looked_up: Callable[[OpenBatch], None] | None = None,
    ) -> None:
        self._ahead = ahead
        self._looked_up = looked_up
        self._depth = depth
        self._service = service
        self._transfer = transfer
        self._figures = figures
        self._clock = clock
        self._decoding = decoding
        self._keep_stand_in = keep_stand_in
        self._stand_in: tuple[Any, Packed] | None = None
        self._stand_in_codec: CodecSpec | None = None
        self._tape = service.recorder[LOOP]
        self._asked_at = 0.0  # when the data loader was asked for the batch that it is read for now

    def next(self) -> Arrival | None:
        """The next finished batch; None at the end of the epoch.

        Raises:
            Exception: the data loader's, once all before it has arrived.
            EdlDistError: what ended the service, or why the batch that is due has no labels.
            SystemExit: this process was asked to stop, and no labels or no batches come.
        """
        wait: LabelWait | None = None
        if self._ahead.lock_step:
            # Here and nowhere else, so that every rank has read as much when its loop has had as much.
            self._fill(lambda: self._ahead.outstanding < self._depth)
        while True:
            self._read()
            if self._ended():
                return None
            if self._transfer or self._send_on():
                break
            wait = wait or LabelWait(self._service, self._clock, self._figures)
            if self._await_head(wait):
                break
        self._ahead.take()
        batch, value = self._transfer.take()
        if self._transfer.wants:
            self._send_on()
        pair = None if value is None else self._pair(batch, *value)
        batch.let_go()
        return Arrival(batch, pair)

    def stand_in(self, failure: EdlDistError) -> Pair:
        """A labelled batch for a step in which the one that is due could not be labelled.

        Raises:
            EdlDistError: there is none; why the one that is due has no labels.
        """
        if self._stand_in is None:
            found = self._labelled_behind(self._suffices)
            if found is None:
                try:
                    raise failure
                finally:
                    del failure  # an error that its own frame holds is left to a garbage collector
            # The loop gets the batch itself later, and may write to what it gets.
            self._stand_in = mapped((found.batch, found.labels()), torch.clone)
            self._stand_in_codec = found.codec
        batch, packed = self._transfer.bring(self._stand_in)
        return batch, self._decoding.of(packed, self._stand_in_codec)

    def at_end(self) -> bool:
        """Whether the loop has the last batch of its epoch; reads one more if that is not known."""
        self._asked_at = self._clock.monotonic()
        return self._ahead.at_end(self._offer)

    def clear(self) -> None:
        """Forget what was read and not consumed."""
        self._service.delivery.clear()
        self._transfer.clear()
        self._figures.discarded += self._ahead.drop()

    def close(self) -> None:
        """Forget everything."""
        self.clear()
        self._stand_in = None

    # --- towards the loop -----------------------------------------------------------------------------

    def _read(self) -> None:
        if not self._ahead.lock_step:
            self._fill(self._wants_batch)

    def _fill(self, wants: Callable[[], bool]) -> None:
        self._asked_at = began = self._clock.monotonic()
        self._ahead.fill(wants, self._offer)
        self._figures.has_read(self._clock.monotonic() - began)

    def _offer(self, batch: OpenBatch) -> None:
        self._service.offer(batch, self._looked_up)
        if self._tape.on:
            now = self._tape.now()
            self._tape.write(Kind.READ, self._asked_at, now, batch.number, batch.samples)
            self._asked_at = now

    def _wants_batch(self) -> bool:
        return self._service.delivery.wants_batch() and not self._winds_up

    def _await_head(self, wait: LabelWait) -> bool:
        """Wait a while for the head of the queue, or until more is to be read; whether it was sent on."""
        reading = self._ahead.more and not self._winds_up and not self._ahead.lock_step
        return wait.for_labels(reading) and self._send_on()

    @property
    def _winds_up(self) -> bool:
        """Once asked to stop, the loop gets what is there already: who reads may have been ended, too."""
        return stopping.asked() and self._ahead.outstanding > 0

    def _ended(self) -> bool:
        try:
            return self._ahead.ended
        except Exception:
            if not stopping.asked():
                raise
            what = "asked to stop, and no batch can be read: leaving without a checkpoint"
            logger.warning(what, exc_info=True)
            raise SystemExit(0) from None

    def _send_on(self) -> bool:
        """Put the head of the queue, if it is finished, on its way to the device."""
        batch = self._service.delivery.deliver()
        if batch is None:
            return False
        self._figures.waiting_s = 0.0
        self._transfer.put(batch, None if batch.failure else (batch.batch, batch.labels()))
        return True

    def _labelled_behind(self, suffices: Callable[[OpenBatch], bool]) -> OpenBatch | None:
        """The first batch whose labels suffice behind those that have arrived, waited for.

        Returns:
            None if there is none.

        Raises:
            SystemExit: this process was asked to stop, and what is here does not suffice.
        """
        wait = LabelWait(self._service, self._clock, self._figures)
        looked_at = 0
        while looked_at < _MOST_IN_A_ROW:
            batch: OpenBatch
            for batch in self._transfer.tags(looked_at):
                looked_at += 1
                if batch.failure is None and suffices(batch):
                    return batch
            self._read()
            if self._ahead.outstanding > looked_at:
                if not self._send_on():
                    self._await_head(wait)
            elif self._ahead.lock_step or not (self._ahead.more or self._ahead.read_further()):
                break
            elif not self._wants_batch():  # asked to stop, or this job's turn has not come
                self._await_head(wait)
        return None

    # --- labels ---------------------------------------------------------------------------------------

    def _pair(self, batch: OpenBatch, value: Any, packed: Packed) -> Pair:
        decoding = self._decoding
        if batch.codec is None:
            decoding.learn(packed)
        if lacking := decoding.lacking(batch.labelled | batch.passed_over):
            return value, self._with_no_rows(packed, lacking)
        if self._keep_stand_in:
            self._stand_in, self._stand_in_codec = (batch.batch, batch.labels()), batch.codec
        labels = decoding.of(packed, batch.codec)
        known = not batch.passed_over or decoding.all_known(batch.passed_over)
        return value, labels if known else NoLabels(labels)

    def _suffices(self, batch: OpenBatch) -> bool:
        return self._decoding.suffices(batch.labelled | batch.passed_over)

    def _with_no_rows(self, packed: Packed, lacking: Set[str]) -> dict[str, Any]:
        """Labels without rows beside others, of teachers that saw no samples of the batch."""
        decoding = self._decoding
        if unknown := decoding.unknown(lacking):
            found = self._labelled_behind(
                lambda batch: batch.codec is None and decoding.are_known(unknown, batch.labelled)
            )
            if found is None:
                return NoLabels(decoding.of(packed))
            decoding.learn(found.labels())
        no_rows = self._transfer.bring(decoding.without_rows(lacking))
        return decoding.of(
            packed | {name: tensors | packed.get(name, {}) for name, tensors in no_rows.items()}
        )
