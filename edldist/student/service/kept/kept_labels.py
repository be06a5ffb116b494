"""Labels that a store has kept, as a source of a group's labels beside its workers: both are of one mind."""

from __future__ import annotations

from collections.abc import Mapping

from edldist.errors import StoreError
from edldist.labels.fingerprint import Fingerprint
from edldist.labels.versions import is_newer
from edldist.store.shelf import Shelf
from edldist.student.service.delivery import Delivery
from edldist.student.service.kept.handed_on import handed_on
from edldist.student.service.kept.shelves import Shelves
from edldist.student.service.kept.store_use import StoreUse
from edldist.student.service.options import ServiceOptions
from edldist.student.service.peers import ConnectedWorker
from edldist.student.service.standards import Standards
from edldist.wire.messages import Scalar

__all__ = ["KeptLabels"]


class KeptLabels:
    """Keeps the shelves of a student and the standards of its groups in step.

    Args:
        options: which store is used, if any, and of whom.
        standards: what counts as each group.

    Attributes:
        shelves: None without a store.

    Raises:
        StoreError: all labels are to be from the store, and it has none, or those of several, or such as
            cannot be read.
    """

    def __init__(self, options: ServiceOptions, standards: Standards) -> None:
        self._options = options
        self._standards = standards
        self.shelves: Shelves | None = None
        if options.store is not None:
            self.shelves = Shelves(options.store, options.teachers, options.flow, options.versions)
            if options.store.only:
                for teacher, fingerprint in self.shelves.only(options.codecs).items():
                    if reason := standards.reads(teacher, fingerprint):
                        raise StoreError(reason)

    # --- any thread -------------------------------------------------------------------------------

    def open_now(self) -> dict[str, Shelf]:
        """Where labels of each teacher are kept, as far as that is known."""
        return {} if self.shelves is None else self.shelves.open_now()

    def stats(self) -> dict[str, Scalar]:
        """Figures of the store; none without one."""
        return {} if self.shelves is None else self.shelves.stats()

    def used(self) -> dict[str, Fingerprint]:
        """What the labels that were used came from, workers' and kept ones, by teacher group."""
        used = self._standards.used()
        if self.shelves is not None:
            for teacher, kept in self.shelves.used().items():
                known = used.get(teacher)
                if known is None or is_newer(kept.fingerprint, known):
                    used[teacher] = kept.whole
        return used

    # --- the training thread ----------------------------------------------------------------------

    def expect(self, former: Mapping[str, Fingerprint]) -> None:
        """Take none but labels of these, by group; workers from when the I/O thread heeds it."""
        self._standards.expect_soon(former)
        if self.shelves is not None:
            readable = {name: its for name, its in former.items() if not self._standards.reads(name, its)}
            self.shelves.expect(former, readable)

    def hand_on(self, delivery: Delivery) -> StoreUse | None:
        """The labels that are here, for the next generation's service; None where a store has them."""
        if self.shelves is not None or self._options.versions:
            return None
        return handed_on(delivery, self.used(), self._options.teachers, self._options.flow)

    def take_on(self, handed: StoreUse) -> None:
        """Find labels that another generation's service handed on. Before anything is read."""
        if self.shelves is None:
            self.shelves = Shelves(handed, self._options.teachers, self._options.flow, ())

    # --- the I/O thread ---------------------------------------------------------------------------

    def heed(self) -> None:
        """Kept labels were used: their groups are what made these, whoever comes."""
        if self.shelves is not None:
            for teacher, used in self.shelves.used().items():
                self._standards.used_kept(teacher, used.fingerprint, used.outputs)

    def joined(self, worker: ConnectedWorker, delivery: Delivery) -> None:
        """A worker was let in: its labels are kept, and those of its like are found."""
        if self.shelves is not None:
            compared = self._options.agreement is not None
            worker.keep = self.shelves.keeper(worker.teacher, worker.fingerprint, compared)
            if self.shelves.open(worker.teacher, worker.fingerprint):
                self.shelves.look_again(worker.teacher, delivery)

    def deserted(self, teacher: str) -> None:
        """The last worker of a group has gone: it may be another one next, unless its labels were used."""
        if self.shelves is None or not self.shelves.desert(teacher):
            self._standards.deserted(teacher)
