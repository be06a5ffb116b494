"""Labels that are here when a group of ranks changes in process, for the loaders of its next generation.

The next generation deals the same batches to other ranks, and most of what this one has read ahead comes
again, mostly to the same rank. So its labels are kept for a moment as a store keeps them (``edldist.store``):
in memory, by digests of what the teacher saw, under the fingerprint of who made them. Nobody pays for that
but who has seen a change, and only for the first batches behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from edldist.labels.fingerprint import Fingerprint
from edldist.store.label_store import LabelStore
from edldist.store.recipe import Recipe
from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.lookup import SampleKeys
from edldist.student.queue.flow import Flow
from edldist.student.service.delivery import Delivery
from edldist.student.service.kept.store_use import StoreUse

__all__ = ["handed_on"]

_MOST_BYTES = 64 << 20
"""Inputs that are digested at most: about a tenth of a second, for which the others wait."""


def handed_on(
    delivery: Delivery, used: Mapping[str, Fingerprint], teachers: Sequence[str], flow: Flow
) -> StoreUse | None:
    """What the next loader may find; None if there is nothing, or nobody could tell whose labels they are.

    Args:
        used: who made the labels of each teacher group.
        teachers: the groups.
        flow: how batches are cut: labels of fixed cuts are of their cut alone.
    """
    made_by = {teacher: used[teacher] for teacher in teachers if teacher in used}
    if len(made_by) < len(teachers) or not all(each.weights or each.version for each in made_by.values()):
        return None
    store, keys = LabelStore(None), SampleKeys(None, "", flow.fixed, flow.task_size)
    batches, left_bytes = 0, _MOST_BYTES
    for batch in delivery.labelled():
        left_bytes -= batch.nbytes
        if left_bytes < 0:
            break
        batches += 1
        for teacher, fingerprint in made_by.items():
            _put(store, teacher, fingerprint, batch, keys)
    # One more than there are: the batch that the loop had begins where these do not.
    return StoreUse(store, most_batches=batches + 1) if batches else None


def _put(
    store: LabelStore, teacher: str, fingerprint: Fingerprint, batch: OpenBatch, keys: SampleKeys
) -> None:
    inputs, rows = batch.inputs_of(teacher), batch.rows_of(teacher)
    if rows is None:
        return
    lengths = None
    if inputs.wanted.ends is not None:
        lengths = [inputs.label_rows(sample, sample + 1) for sample in range(inputs.samples)]
    shelf = store.shelf(Recipe(fingerprint=msgspec.structs.replace(fingerprint, outputs=None)))
    shelf.put(keys.of(batch.batch, batch.samples, inputs).keys, rows.specs, rows.frames, None, lengths)
