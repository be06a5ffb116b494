"""The labels of this student's teachers in a store: whose shelf is which, what is found there, what is put.

A shelf is known by the fingerprint of the workers that make its labels. So one is open from the moment that
the first worker of a group is let in; or before, where a checkpoint says which teacher it was, or where all
labels are in the store and no worker is expected. What is read before is looked for once more when it opens.

::

    training thread   read -> look_up -> found: in place before the batch is open, and nobody is asked
                                         not found: workers label it -> put, by the I/O thread, as it came
    I/O thread        open -> look_again: what nobody was given yet of the open batches

What happens when a party dies: a worker's labels stay, they are its group's; those of one that is put aside
are taken off the shelf (``worker_labels``). A group whose last worker has
gone is fixed if labels of its shelf were used, or else anew whatever comes next. The store itself never fails
a job: what it does not take is dropped and counted (``edldist.store``).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from edldist.errors import LabelError, StoreError
from edldist.labels.fingerprint import Fingerprint
from edldist.labels.grammar import CodecSpec
from edldist.labels.versions import number_of
from edldist.store.found import Found
from edldist.store.recipe import Recipe
from edldist.store.sample_key import Keys
from edldist.store.shelf import Shelf
from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.label_rows import LabelRows
from edldist.student.batch.lookup import Lookup, SampleKeys
from edldist.student.queue.flow import Flow
from edldist.student.queue.outcomes import Grant
from edldist.student.queue.wanted import Wanted
from edldist.student.service.delivery import Delivery
from edldist.student.service.kept.store_use import StoreUse
from edldist.student.service.kept.worker_labels import WorkerLabels
from edldist.wire.messages import Scalar

__all__ = ["Shelves", "Used"]

logger = logging.getLogger(__name__)


class Used(NamedTuple):
    """Labels of a shelf were given to the loop.

    Attributes:
        fingerprint: of who made them.
        outputs: names of their tensors.
    """

    fingerprint: Fingerprint
    outputs: list[str]

    @property
    def whole(self) -> Fingerprint:
        """The fingerprint, with the outputs in it."""
        return msgspec.structs.replace(self.fingerprint, outputs=sorted(self.outputs))


class _Open(NamedTuple):
    fingerprint: Fingerprint
    shelf: Shelf
    version: int | None


class Shelves:
    """The shelves of a student's teachers.

    Args:
        use: the store, and how it is used.
        teachers: names of the groups.
        flow: how batches are cut.
        rolling: groups whose versions follow each other.

    Raises:
        ConfigError: samples are named, and their data set is not.
    """

    def __init__(self, use: StoreUse, teachers: Sequence[str], flow: Flow, rolling: Collection[str]) -> None:
        self._use = use
        self._teachers = teachers
        self._rolling = frozenset(rolling)
        self._own_memory = not flow.fixed
        self._keys = SampleKeys(use.ids, use.data, flow.fixed, flow.task_size)
        self._lock = threading.Lock()
        # Invariant: guarded by the lock; a group of which labels were used keeps its shelf (of the newest
        # version, where these follow each other).
        self._open: dict[str, _Open] = {}
        self._used: dict[str, Used] = {}
        self._expected: dict[str, Fingerprint] = {}
        self._hits = self._misses = self._turn = self._looked_up = 0
        self._said = False

    # --- any thread ---------------------------------------------------------------------------------

    def stats(self) -> dict[str, Scalar]:
        """Samples that were found, and not; and what all shelves of the store that are open here hold."""
        with self._lock:
            shelves = {id(each.shelf): each.shelf for each in self._open.values()}
            figures: dict[str, Scalar] = {"store_hits": self._hits, "store_misses": self._misses}
        held = [shelf.figures() for shelf in shelves.values()]
        for name in ("memory_bytes", "disk_bytes", "written", "evicted", "dropped", "withdrawn", "damaged"):
            figures[f"store_{name}"] = sum(each[name] for each in held)
        return figures

    def open_now(self) -> dict[str, Shelf]:
        """The shelf of each group of which it is known what makes its labels."""
        with self._lock:
            return {teacher: each.shelf for teacher, each in self._open.items()}

    def used(self) -> dict[str, Used]:
        """The groups of which labels were found, and used."""
        with self._lock:
            return dict(self._used)

    # --- the training thread ------------------------------------------------------------------------

    def only(self, codecs: Mapping[str, CodecSpec]) -> dict[str, Fingerprint]:
        """Open the one shelf of each group that there is: no worker will say what its labels are.

        Args:
            codecs: in which the loop takes labels, where it says so.

        Raises:
            StoreError: there is none, or more than one.
        """
        found = {}
        for teacher in self._teachers:
            recipe = self._use.recipe_of(teacher, codecs.get(teacher), self._keys.data)
            found[teacher] = recipe.fingerprint
            self.open(teacher, recipe.fingerprint)
        return found

    def expect(self, former: Mapping[str, Fingerprint], readable: Mapping[str, Fingerprint]) -> None:
        """Labels are of these from now on: those that labelled for the checkpoint that is gone on from.

        Args:
            readable: those whose labels can be read before a worker is here.
        """
        with self._lock:
            self._expected.update(former)
            for teacher in former:
                self._open.pop(teacher, None)
                self._used.pop(teacher, None)
        for teacher, fingerprint in readable.items():
            if fingerprint.weights or fingerprint.version:
                self.open(teacher, fingerprint)

    def look_up(self, batch: OpenBatch) -> None:
        """Find what there is of a batch that is about to be offered.

        Raises:
            InputError: its ids cannot be used.
            StoreError: a sample is not what its labels were made of; or some are not in the store, and no
                worker is expected.
        """
        if self._use.most_batches is not None:
            if self._looked_up >= self._use.most_batches:
                return
            self._looked_up += 1
        for teacher in self._teachers:
            inputs = batch.inputs_of(teacher)
            if not inputs.samples:
                continue
            lookup = batch.lookups[teacher] = self._keys.of(batch.batch, batch.samples, inputs)
            had = self._find(batch, teacher, lookup, [(0, inputs.samples)])
            wanted = inputs.wanted
            if had is not None:
                taken, rows, version = had
                batch.place_found(teacher, taken, rows, version)
                lookup.found = taken.missing
                lookup.runs = _rest(taken, [(0, inputs.samples)])
                wanted = lookup.lacking(wanted)
            if self._use.only and wanted.runs:
                raise StoreError(self._lacks(teacher, lookup, wanted))
            self._keys.digest(lookup, inputs, wanted.runs)
            with self._lock:
                self._hits += lookup.found
                self._misses += wanted.missing

    # --- the I/O thread -----------------------------------------------------------------------------

    def open(self, teacher: str, fingerprint: Fingerprint) -> bool:
        """A worker of a group is let in: labels are found on its shelf; whether that is another one now.

        Raises:
            StoreError: nobody could tell labels of this teacher from those of another.
        """
        shelf, version = self._shelf_of(teacher, fingerprint), None
        if teacher in self._rolling:
            version = number_of(fingerprint.version)
        elif (former := self._expected.get(teacher)) is not None and fingerprint.differences(former):
            return False
        with self._lock:
            current = self._open.get(teacher)
            if current is not None and current.shelf is shelf:
                return False
            if current is not None and (version or 0) < (current.version or 0):
                return False
            self._open[teacher] = _Open(fingerprint, shelf, version)
            return True

    def look_again(self, teacher: str, delivery: Delivery) -> None:
        """Find what there is of batches that were read before the shelf was open."""
        for batch, pieces in delivery.uncut(teacher):
            lookup = batch.lookups.get(teacher)
            had = None if lookup is None else self._find(batch, teacher, lookup, pieces)
            if lookup is None or had is None:
                continue
            taken, rows, version = had
            delivery.found(teacher, batch, taken, rows, version)
            lookup.found += taken.missing
            with self._lock:
                self._hits += taken.missing
                self._misses -= taken.missing

    def desert(self, teacher: str) -> Used | None:
        """The last worker of a group has gone: what of its labels was used, else its shelf is closed."""
        with self._lock:
            if (used := self._used.get(teacher)) is None and teacher not in self._expected:
                self._open.pop(teacher, None)
            return used

    def keeper(self, teacher: str, fingerprint: Fingerprint, compared: bool) -> WorkerLabels | None:
        """What puts labels of a worker on its shelf; None if none are put.

        Args:
            compared: whether the worker may be put aside.

        Raises:
            StoreError: nobody could tell labels of this teacher from those of another.
        """
        if self._use.most_batches is not None:
            return None
        shelf = self._shelf_of(teacher, fingerprint)

        def put(rows: LabelRows, placed: Sequence[tuple[Grant, OpenBatch, int]]) -> Keys | None:
            try:
                return self._put(shelf, teacher, rows, placed)
            except StoreError as exc:
                if not self._said:
                    self._said = True
                    logger.warning("labels of teacher %r are not kept: %s", teacher, exc)
                return None

        return WorkerLabels(shelf, put, compared)

    # --- inside -------------------------------------------------------------------------------------

    def _shelf_of(self, teacher: str, fingerprint: Fingerprint) -> Shelf:
        recipe = Recipe(
            fingerprint=msgspec.structs.replace(fingerprint, outputs=None),
            settings=self._use.settings_of(teacher),
            preprocessing=self._use.preprocessing,
            data=self._keys.data,
        )
        return self._use.store.shelf(recipe)

    def _find(
        self, batch: OpenBatch, teacher: str, lookup: Lookup, pieces: Sequence[tuple[int, int]]
    ) -> tuple[Wanted, LabelRows, int | None] | None:
        """What there is of some samples, its rows and its version; None if nothing is.

        It counts as used: whatever worker comes next has to be like those that made it.
        """
        inputs = batch.inputs_of(teacher)
        samples = np.concatenate([np.arange(start, stop) for start, stop in pieces])
        while True:
            with self._lock:
                current = self._open.get(teacher)
            found = None if current is None else current.shelf.find(lookup.keys[samples])
            if current is None or found is None:
                return None
            hit = np.zeros(inputs.samples, np.bool_)
            hit[samples[found.hit]] = True
            use = self._keys.whole_cuts(hit)
            hits = np.flatnonzero(hit)
            self._turn += 1
            self._keys.check(lookup, inputs, hits, found.witness, self._turn)
            if not use.any():
                return None
            taken = inputs.wanted.only(np.flatnonzero(use).tolist())
            rows = self._rows(found, use[hits])
            if rows.rows != sum(inputs.label_rows(start, stop) for start, stop in taken.runs):
                raise LabelError(
                    f"the store has {rows.rows} rows of labels of teacher {teacher!r} for "
                    f"{taken.missing} samples of a batch: it was filled by another edldist"
                )
            with self._lock:
                if self._open.get(teacher) is not current:
                    continue  # the workers that made them are none of the group any more
                if teacher not in self._used or current.version is not None:
                    outputs = [spec.name for spec in rows.specs]
                    self._used[teacher] = Used(current.fingerprint, outputs)
            return taken, rows, current.version

    def _rows(self, found: Found, use: np.ndarray) -> LabelRows:
        specs, frames = found.specs, found.frames()
        rows = found.hits if found.lengths is None else int(found.lengths.sum())
        if use.all():
            return LabelRows(specs, frames, rows, self._own_memory)
        chosen = use if found.lengths is None else np.repeat(use, found.lengths)
        tables = [np.frombuffer(frame, np.uint8).reshape(rows, -1)[chosen] for frame in frames]
        left = int(chosen.sum())
        fewer = [type(spec)(spec.name, spec.dtype, [left, *spec.shape[1:]]) for spec in specs]
        return LabelRows(fewer, [table.reshape(-1).data for table in tables], left)

    def _put(
        self, shelf: Shelf, teacher: str, rows: LabelRows, placed: Sequence[tuple[Grant, OpenBatch, int]]
    ) -> Keys | None:
        keys, witness, lengths, spans = [], [], [], []
        for grant, batch, first in placed:
            lookup, inputs = batch.lookups.get(teacher), batch.inputs_of(teacher)
            if lookup is None:
                continue
            keys.append(lookup.keys[grant.start : grant.stop])
            if lookup.witness is not None:
                witness.append(lookup.witness[grant.start : grant.stop])
            if inputs.wanted.ends is not None:
                each = range(grant.start, grant.stop)
                lengths += [inputs.label_rows(sample, sample + 1) for sample in each]
            spans.append((first, first + inputs.label_rows(grant.start, grant.stop)))
        if not keys:
            return None
        kept, specs, frames = sum(stop - start for start, stop in spans), rows.specs, rows.frames
        if kept != rows.rows:  # others were first with some of them
            tables = [np.concatenate([table[start:stop] for start, stop in spans]) for table in rows.memory]
            frames = [table.reshape(-1).data for table in tables]
            specs = [type(spec)(spec.name, spec.dtype, [kept, *spec.shape[1:]]) for spec in specs]
        its = np.concatenate(keys)
        shelf.put(its, specs, frames, np.concatenate(witness) if witness else None, lengths or None)
        return its

    def _lacks(self, teacher: str, lookup: Lookup, wanted: Wanted) -> str:
        sample = wanted.runs[0][0]
        which, other = f"place {sample} of the batch", ""
        if lookup.ids is None:
            other = (
                "; where that was done, this sample is read as other inputs than it was then, as by an "
                "augmentation without a seed (docs/store.md)"
            )
        else:
            which = f"id {lookup.ids[sample]!r}"
        return (
            f"the store {self._use.store.url} has no labels of teacher {teacher!r} for {wanted.missing} of "
            f"the {wanted.samples} samples of a batch, the first at {which}, and this loop takes labels from "
            f"the store alone. Label them first (edldist label){other}. Or let teachers label what is "
            "missing (store.only: false)"
        )


def _rest(taken: Wanted, pieces: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """What is left of some pieces without what was found."""
    had = {sample for start, stop in taken.runs for sample in range(start, stop)}
    return taken.only(
        sample for start, stop in pieces for sample in range(start, stop) if sample not in had
    ).runs
