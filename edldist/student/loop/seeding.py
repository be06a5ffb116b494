"""Refuses augmentations that no seed can make again, beside a store that would never find their labels."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from typing import Any

import numpy as np

from edldist.errors import StoreError
from edldist.observe.remarks import remark
from edldist.sampling.rereading import reread
from edldist.store.sample_key import Keys
from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.lookup import SampleKeys
from edldist.student.batch.teacher_inputs import TeacherInputs
from edldist.student.loop.figures import LoopFigures
from edldist.student.loop.reading import ReadAhead
from edldist.student.loop.recurrence import Fruitless, Recurrence
from edldist.student.service.service import StudentService

__all__ = ["SeedingWatch"]

logger = logging.getLogger(__name__)


class SeedingWatch:
    """Looks after each batch of which a store was asked, where samples are known by their inputs.

    Where a sample of a later epoch is not found, some samples of the data set are read several times over. If
    one does not look the same each time, what is kept of this data will not be found again. What cannot be
    read again (a stream) is only noticed when a whole epoch has found nothing: said once, and counted.

    Owned by the training thread, which reads the data loader apart from its own random numbers meanwhile.

    Args:
        data_loader: whose batches they are.
        ahead: reads it.
        service: knows where labels are kept.
        figures: get the number of epochs in vain, from the first batch on.
    """

    def __init__(
        self,
        data_loader: Iterable[Any],
        ahead: ReadAhead,
        service: StudentService,
        figures: LoopFigures,
    ) -> None:
        self._data_loader = data_loader
        self._ahead = ahead
        self._service = service
        self._figures = figures
        self._recurrence = Recurrence()
        self._keys = SampleKeys(None, "", fixed=False, cut=None)
        self._said = False

    def looked_up(self, batch: OpenBatch) -> None:
        """A batch was looked up, and is about to be offered.

        Raises:
            StoreError: the data loader's samples look different whenever they are read.
        """
        epoch, position = batch.mark.epoch, self._ahead.position
        inside = epoch == position.epoch and position.samples > 0
        for teacher, lookup in batch.lookups.items():
            samples = len(lookup.texts)
            if teacher in self._service.shelves and self._recurrence.look_closer(
                epoch, samples - lookup.found
            ):
                self._look_closer()
        for first, lookup in itertools.islice(batch.lookups.items(), 1):
            told = self._recurrence.looked_up(epoch, len(lookup.texts), lookup.found, lookup.texts, inside)
            if told is not None:
                self._in_vain(first, told)

    # --- inside -------------------------------------------------------------------------------------

    def _look_closer(self) -> None:
        try:
            again = reread(self._data_loader)
            if again is None:
                return
            looks = [self._looks_of(batch) for batch in again.batches]
        except Exception as exc:  # the data loader itself will say what is wrong with its data
            logger.info("samples could not be read again, to see whether they look the same: %r", exc)
            return
        for other in looks[1:]:
            if (row := _differing(looks[0], other)) is not None:
                raise StoreError(_refusal(again.named(row, len(looks[0][0]))))

    def _looks_of(self, batch: Any) -> list[Keys]:
        """Digests of its samples as teachers see them, one for each who sees something else."""
        seen = self._ahead.select(batch)
        views = [TeacherInputs(*part) for part in seen.apart.values()]
        if seen.tensors:
            views.append(TeacherInputs(seen.tensors, seen.samples))
        return [self._keys.of(batch, seen.samples, view).keys for view in views]

    def _in_vain(self, teacher: str, told: Fruitless) -> None:
        shelf = self._service.shelves.get(teacher)
        keys = np.frombuffer(b"".join(told.keys), np.uint8).reshape(len(told.keys), -1)
        if shelf is None or not shelf.keeps(keys).all():
            return
        self._figures.fruitless_epochs += 1
        if self._said:
            return
        self._said = True
        text = (
            f"epoch {told.epoch} found none of its {told.samples} samples in the store, which has the labels "
            f"of epoch {told.epoch - 1}: other samples, or other inputs each time (an augmentation). Unless "
            "a later run shows them as they were, the store only costs: seed the augmentation by the sample "
            "(edldist.augmentation_seed, docs/store.md), or use no store (store=False)"
        )
        logger.warning("%s", text)
        remark(text)


def _differing(one: list[Keys], other: list[Keys]) -> int | None:
    """The first row that differs between two looks at the same samples."""
    for mine, its in zip(one, other, strict=True):
        if mine.shape != its.shape:
            return 0
        rows = np.flatnonzero((mine != its).any(axis=1))
        if rows.size:
            return int(rows[0])
    return None


def _refusal(which: str) -> str:
    return (
        f"{which} does not look the same when it is read again: an augmentation that is not seeded, or an "
        "input that is drawn. The store knows samples by their inputs, so it would keep labels that nobody "
        "finds again. Seed it by the sample (edldist.augmentation_seed(seed, index, variant), "
        "docs/store.md), or use no store (store=False, or a job file without one). What was trained so far "
        "is right, and its checkpoints stay"
    )
