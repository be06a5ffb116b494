"""A batch on its way: what teachers see of it, what the loop gets, and its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import torch
from torch import Tensor

from edldist.errors import EdlDistError, LabelError
from edldist.labels.grammar import CodecSpec
from edldist.labels.versions import LARGEST_VERSION
from edldist.student.batch.held_bytes import held_bytes
from edldist.student.batch.label_rows import LabelRows, TeacherLabels
from edldist.student.batch.lookup import Lookup
from edldist.student.batch.teacher_inputs import PLACES, VERSION, TeacherInputs
from edldist.student.memory.leaves import Leaf
from edldist.student.memory.to_device import Allocate
from edldist.student.queue.outcomes import Grant
from edldist.student.queue.wanted import Wanted

__all__ = ["OpenBatch"]


class OpenBatch:
    """A batch between the data loader and the training loop.

    The trainer's thread makes it, the I/O thread cuts it and places labels, the trainer's thread
    takes ``labels`` once the queue says that all are there. ``poison`` says why there are none.

    Args:
        batch: what the loop gets.
        inputs: what teachers see of it.
        samples: how many there are, in ``inputs`` too.
        mark: where it stands in the data, for whoever made it.
        allocate: makes the label buffers, in the I/O thread. Without it they are ordinary memory: large
            frames become the labels themselves, uncopied, where one answer labels the whole batch.
        apart: teachers that see something else than ``inputs``: a part of the samples, other tensors.
        beyond: tensors and arrays that hang on objects of own classes in it, and take memory as others do.

    Attributes:
        number: its place in the order of delivery, once it is in the queue; 0 before.
        nbytes: the memory that it holds: what the loop gets, and what teachers see, counted once.
        failure: why it is delivered without labels; None if it has them.
        error: what the loop is to be told when the batch is due and has no labels.
        codec: the smaller one in which its labels are asked for; None for that of the group.
        offered_at: when the queue got it, in monotonic seconds.
        lookups: what a store knows of its samples, by teacher; empty without one.
        passed_over: teachers that are missing, without whose labels it goes on: with none of them, even if
            some of its samples had some.
    """

    __slots__ = (
        *("__weakref__", "_allocate", "_apart", "_inputs", "_labels", "_versions"),
        *(
            "batch",
            "codec",
            "error",
            "failure",
            "lookups",
            "mark",
            "nbytes",
            "number",
            "offered_at",
            "passed_over",
        ),
        "samples",
    )

    def __init__(
        self,
        batch: Any,
        inputs: Mapping[str, Tensor],
        samples: int,
        mark: Any = None,
        allocate: Allocate | None = None,
        apart: Mapping[str, TeacherInputs] | None = None,
        beyond: Sequence[Leaf] = (),
    ) -> None:
        self.batch = batch
        self.samples = samples
        self.mark = mark
        self.offered_at = 0.0
        self.number = 0
        self.failure: EdlDistError | None = None
        self.error: EdlDistError | None = None
        self.codec: CodecSpec | None = None
        self.lookups: dict[str, Lookup] = {}
        self.passed_over: frozenset[str] = frozenset()
        self._allocate = allocate
        self._inputs = TeacherInputs(inputs, samples)
        self._apart = apart or {}
        self._labels: dict[str, TeacherLabels] = {}
        # Of teachers whose versions follow each other: int64, of each row of their labels that is there.
        self._versions: dict[str, Tensor] = {}
        seen = [*inputs.values()]
        copied_bytes = self._inputs.copied_bytes
        for view in self._apart.values():
            seen += view.tensors.values()
            copied_bytes += view.copied_bytes
        # A batch that is one tensor, and all that teachers see, needs not be told apart from itself.
        itself = len(seen) == 1 and seen[0] is batch
        self.nbytes = copied_bytes + held_bytes(batch if itself else (batch, seen, beyond))

    def let_go(self) -> None:
        """The trainer's thread is done with what the loop gets.

        The I/O thread may hold this object a little longer, and is not to be the one that finalises what a
        script put into a batch.
        """
        self.batch = None

    def inputs_of(self, teacher: str) -> TeacherInputs:
        """What a teacher sees of it."""
        return self._apart.get(teacher, self._inputs)

    def wanted_of(self, teacher: str) -> Wanted:
        """What workers of a teacher have to label: what it sees, but for what was found in a store."""
        wanted = self.inputs_of(teacher).wanted
        lookup = self.lookups.get(teacher)
        return wanted if lookup is None else lookup.lacking(wanted)

    def place(
        self, teacher: str, start: int, stop: int, came: LabelRows, at: int, version: int | None = None
    ) -> int:
        """Put one task's labels into the batch's buffers, made on first need.

        Args:
            start, stop: the task's samples, of those that the teacher sees.
            came: labels; the task's begin at row ``at``.
            version: of the teacher, where versions follow each other.

        Returns:
            Bytes of buffers that were made.

        Raises:
            LabelError: names, shapes or dtypes differ from the batch's other tasks. Nothing is
                written then.
            LabelMemoryError: this rank has no memory for the buffers. Nothing is kept of them then.
        """
        inputs = self.inputs_of(teacher)
        first, last = inputs.label_span(start, stop)
        labels = self._labels.get(teacher)
        made = 0
        if labels is None:
            whole = first == 0 and last == inputs.labels == came.rows
            keep_frames = whole and came.own_memory and self._allocate is None
            labels = TeacherLabels(teacher, came, inputs.labels, self._allocate or _pageable, keep_frames)
            self._labels[teacher] = labels
            made = labels.nbytes
        labels.write(first, last, came, at)
        if version is not None:
            if teacher not in self._versions:
                self._versions[teacher] = torch.full([inputs.labels], LARGEST_VERSION, device="cpu")
            self._versions[teacher][first:last] = version
        return made

    def put(self, grant: Grant, rows: LabelRows, at: int, count: int, version: int | None = None) -> int:
        """Write the rows that answer a lease, ``count`` from ``at`` on; the bytes of buffers that were made.

        Raises:
            LabelError, LabelMemoryError: as of ``place``; or other samples were labelled than leased.
        """
        inputs = self.inputs_of(grant.teacher)
        wanted = inputs.label_rows(grant.start, grant.stop)
        if count != wanted:
            raise LabelError(f"{count} samples were labelled of a task of {wanted}")
        made = 0
        for start, stop in grant.pieces:
            before = 0 if start == grant.start else inputs.label_rows(grant.start, start)
            made += self.place(grant.teacher, start, stop, rows, at + before, version)
        return made

    def place_found(self, teacher: str, had: Wanted, rows: LabelRows, version: int | None = None) -> int:
        """Write labels that were found in a store; the bytes of buffers that were made.

        Args:
            had: the samples that they are of, whose rows follow each other.

        Raises:
            LabelError, LabelMemoryError: as of ``place``.
        """
        inputs = self.inputs_of(teacher)
        made = at = 0
        for start, stop in had.runs:
            made += self.place(teacher, start, stop, rows, at, version)
            at += inputs.label_rows(start, stop)
        return made

    def copy(self, teacher: str, sample: int, of: OpenBatch, its_sample: int) -> int:
        """Give a sample the labels of an equal one; the bytes of buffers that were made.

        Raises:
            LabelError, LabelMemoryError: as of ``place``.
        """
        first, stop = of.inputs_of(teacher).label_span(its_sample, its_sample + 1)
        versions = of._versions.get(teacher)
        version = None if versions is None else int(versions[first])
        return self.place(teacher, sample, sample + 1, of._labels[teacher].rows(first, stop), 0, version)

    def rows_of(self, teacher: str) -> LabelRows | None:
        """All labels of a teacher as they came, of a batch that has all of them; None if it has none."""
        labels = self._labels.get(teacher)
        if labels is None or self.failure is not None or teacher in self.passed_over:
            return None
        return labels.rows(0, self.inputs_of(teacher).labels)

    def has_older(self, teacher: str, version: int) -> bool:
        """Whether labels of a teacher were computed by an older version of it."""
        versions = self._versions.get(teacher)
        return versions is not None and bool((versions < version).any())

    def bytes_of(self, teacher: str) -> int:
        """Memory of the buffers of a teacher's labels."""
        labels = self._labels.get(teacher)
        return 0 if labels is None else labels.nbytes

    def free(self, teacher: str) -> int:
        """Let go of the labels of a teacher, unless some were found; say how many bytes that are."""
        if (lookup := self.lookups.get(teacher)) is not None and lookup.found:
            return 0
        nbytes = self.bytes_of(teacher)
        self.forget(teacher)
        return nbytes

    def forget(self, teacher: str) -> None:
        """Let go of the labels of a teacher, found or not."""
        if teacher in self.lookups:
            self.lookups[teacher].forget()
        self._labels.pop(teacher, None)
        self._versions.pop(teacher, None)

    @property
    def label_bytes(self) -> int:
        """Memory of the buffers that were made."""
        return sum(labels.nbytes for labels in self._labels.values())

    @property
    def labelled(self) -> Set[str]:
        """The teachers of which there are labels."""
        return self._labels.keys() - self.passed_over if self.passed_over else self._labels.keys()

    @property
    def missed(self) -> int:
        """How many labels of samples it goes without, because their teachers are missing."""
        return sum(self.inputs_of(teacher).samples for teacher in self.passed_over)

    def labels(self) -> dict[str, dict[str, Tensor]]:
        """The tensors in which the labels of each teacher came: what its codec packed.

        Of a teacher that labels sequences, or some of the samples, also where its labels belong, under
        ``PLACES``, and nothing else where it saw nothing. Of one that was passed over, that they belong
        nowhere.
        """
        came = {
            teacher: {buffer.spec.name: buffer.tensor for buffer in labels.buffers}
            for teacher, labels in self._labels.items()
            if teacher not in self.passed_over
        }
        for teacher in came.keys() & self._versions.keys():
            came[teacher][VERSION] = self._versions[teacher]
        for teacher, view in self._apart.items():
            if view.places is not None:
                came.setdefault(teacher, {})[PLACES] = view.places
        for teacher in self.passed_over:
            view = self.inputs_of(teacher)
            shape = [view.samples] if view.places is None else view.places.shape
            came[teacher] = {PLACES: torch.full(shape, -1, dtype=torch.int64, device="cpu")}
        return came


def _pageable(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, device="cpu")
