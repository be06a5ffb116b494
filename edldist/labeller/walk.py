"""One rank's walk over a data set: what is missing is read and labelled, until all of it lies in files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from edldist.config import LabelConfig
from edldist.labeller.data_set import Batch, NumberedSamples, Stream
from edldist.labeller.naming import BatchKeys
from edldist.labeller.passes import Passes
from edldist.lifecycle.stopping import should_stop
from edldist.observe.reporter import report
from edldist.store.sample_key import KEY_BYTES, Keys
from edldist.store.shelf import Shelf
from edldist.student.loader import DistillLoader

__all__ = ["Reader", "Walk"]

LOOK_S = 0.02
REPORT_EVERY_S = 0.5

Numbers = NDArray[np.int64]


class Reader:
    """What a ``DistillLoader`` reads in each pass: whatever is put here before it."""

    def __init__(self) -> None:
        self.batches: Iterable[Batch] = ()

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


class Walk:
    """Labels a data set, or a rank's part of it. Main thread only.

    Nothing is kept beside the store: what is missing there is what is left to do. So a crash costs what was
    labelled and in no file yet, ``shard_rows`` samples of a rank at most, and these are asked for again.

    Args:
        data: the samples.
        loader: reads ``reader``, and puts labels into the store.
        reader: given the batches of each pass.
        teachers: how many the loader has.
        settings: of the section ``label``.
        keys: of samples, by their numbers; None where only reading them tells.
        of_batches: keys of the samples of a batch that was read.
        part: which rank this is, of how many.
    """

    def __init__(
        self,
        data: NumberedSamples | Stream,
        loader: DistillLoader,
        reader: Reader,
        teachers: int,
        settings: LabelConfig,
        keys: Callable[[Numbers], Keys] | None,
        of_batches: BatchKeys,
        part: tuple[int, int],
    ) -> None:
        self._data = data
        self._loader = loader
        self._reader = reader
        self._teachers = teachers
        self._settings = settings
        self._keys = keys
        self._of_batches = of_batches
        self._rank, self._ranks = part
        self._known: dict[str, Shelf] = {}
        self._passes = Passes()
        self._there = 0  # samples that were labelled before this process began, as far as known
        self._taken = 0  # by this rank since then
        self._next_report_s = 0.0

    def run(self) -> bool:
        """Label all that is missing.

        Returns:
            False: somebody asked to stop before. What was labelled is in files, as after the end.

        Raises:
            StoreError: the store does not take the labels.
            PoisonTaskError: a sample cannot be labelled, and the job does not say to leave such out.
        """
        while len(self._shelves()) < self._teachers:
            if should_stop():
                return False
            time.sleep(LOOK_S)
        data = self._data
        if isinstance(data, NumberedSamples) and self._keys is not None:
            return self._label_missing(data, self._keys)
        return self._label_all(data)

    def _label_missing(self, data: NumberedSamples, keys_of: Callable[[Numbers], Keys]) -> bool:
        """Samples whose keys are known without reading them: nothing is read that is there."""
        own = data.own()
        keys = keys_of(own)
        missing = self._lacks(keys)
        while True:
            self._there, self._taken = max(0, len(data) - int(missing.sum()) * self._ranks), 0
            skipped = self._skipped
            if not self._pass(data.batches(own[missing]), len(data)):
                return False
            missing = self._lacks(keys, checked=True)
            if self._passes.judge(int(missing.sum()), self._skipped - skipped, self._trouble) == "done":
                return True

    def _label_all(self, data: NumberedSamples | Stream) -> bool:
        """Samples that have to be read to be known: those that are there are not asked for.

        Their keys are held until the end, 32 bytes each: only what is in files then has been labelled.
        """
        total: int | None = None
        batches: Iterable[Batch] = data if isinstance(data, Stream) else ()
        if isinstance(data, NumberedSamples):
            total, batches = len(data), data.batches(data.own())
        while True:
            self._taken = 0
            came: list[Keys] = []
            if not self._pass(batches, total, came):
                return False
            keys = np.concatenate(came) if came else np.zeros((0, KEY_BYTES), np.uint8)
            missing = int(self._lacks(keys, checked=True).sum())
            if self._passes.judge(missing, 0, self._trouble) == "done":
                return True

    def _pass(self, batches: Iterable[Batch], total: int | None, came: list[Keys] | None = None) -> bool:
        """Read these batches to their end, and write what was labelled; False: asked to stop before.

        It is left before that where the store does not write: labels that nobody keeps are asked for in vain.

        Args:
            came: gets the keys of each.
        """
        self._reader.batches = batches
        before, unwritten, went_on = self._samples, 0, True
        for batch, _ in self._loader:
            if came is not None:
                came.append(self._of_batches(batch))
            samples = self._samples - before
            before += samples
            self._taken += samples
            unwritten += samples
            self._report(total)
            if unwritten >= self._settings.shard_rows:
                self._flush()
                unwritten = 0
                if self._trouble:
                    break
            if should_stop():
                went_on = False
                break
        self._flush()
        self._report(total, always=True)
        return went_on

    def _shelves(self) -> Sequence[Shelf]:
        """Those of the teachers of which it is known what makes their labels; a group without workers has
        the one that it had."""
        self._known.update(self._loader.shelves)
        return list(self._known.values())

    def _flush(self) -> None:
        for shelf in self._shelves():
            shelf.flush()

    def _lacks(self, keys: Keys, checked: bool = False) -> NDArray[np.bool_]:
        """Of which samples labels of some teacher are in no file, or, if that is checked, in no sound one."""
        lacks = np.zeros(len(keys), np.bool_)
        for shelf in self._shelves():
            lacks |= ~shelf.holds(keys, checked=checked)
        return lacks

    def _count(self, what: str) -> int:
        return sum(shelf.figures()[what] for shelf in self._shelves())

    @property
    def _samples(self) -> int:
        """Those that the loop has taken."""
        return int(self._loader.stats()["samples"] or 0)

    @property
    def _skipped(self) -> int:
        return int(self._loader.stats()["skipped"] or 0)

    @property
    def _trouble(self) -> str:
        return next(filter(None, (shelf.trouble for shelf in self._shelves())), "")

    def _report(self, total: int | None, always: bool = False) -> None:
        """How far it is: rank 0 tells it for all, whose parts are of one size."""
        now = time.monotonic()
        if self._rank or not (always or now >= self._next_report_s):
            return
        self._next_report_s = now + REPORT_EVERY_S
        done = self._there + self._taken * self._ranks
        position = {"step": done} if total is None else {"step": min(done, total), "steps": total}
        report(**position, in_files=self._count("stored"), file_bytes=self._count("disk_bytes"))
