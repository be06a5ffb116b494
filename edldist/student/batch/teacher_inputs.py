"""What one teacher sees of a batch: tensors that can be cut by samples without a copy."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from torch import Tensor

from edldist.errors import InputError
from edldist.student.queue.flow import Flow
from edldist.student.queue.wanted import Wanted
from edldist.wire.shm.lending import lend
from edldist.wire.tensors import as_bytes, dtype_name, own_bytes
from edldist.wire.texts import TextName
from edldist.wire.transport import Piece

__all__ = ["PLACES", "VERSION", "Layout", "TeacherInputs"]

PLACES = "edldist.places"
"""Name, beside those of labels, of where each row of them belongs in the batch (``TeacherInputs.places``)."""

VERSION = "edldist.version"
"""Name, beside those of labels, of the teacher's version by which each row of them was computed."""

Layout = tuple[tuple[str, str, tuple[int, ...]], ...]
"""Names, dtypes and shapes of one row in each tensor."""


class _Rows:
    """One input tensor, sliceable by rows."""

    __slots__ = ("copied_bytes", "layout", "lent", "memory", "name", "row_bytes")

    def __init__(self, name: str, tensor: Tensor, rows: int) -> None:
        self.name = str(name)
        dtype = name.kind if isinstance(name, TextName) else dtype_name(tensor.dtype)
        self.layout = (self.name, dtype, tuple(tensor.shape[1:]))
        self.copied_bytes = 0
        memory = own_bytes(tensor)
        if memory is None:
            memory = as_bytes(tensor)
            if not (tensor.is_cpu and tensor.is_contiguous() and not tensor.is_neg()):
                self.copied_bytes = memory.nbytes
        self.memory = memory
        self.row_bytes = memory.nbytes // rows if rows else 0
        self.lent = lend(tensor)  # what a data loader's worker made needs no copy for a worker on this host

    def cut(self, start: int, stop: int) -> memoryview | Piece:
        first = start * self.row_bytes
        memory = self.memory[first : stop * self.row_bytes]
        if self.lent is None:
            return memory
        return Piece(memory, self.lent.address, self.lent.offset + first)


class TeacherInputs:
    """Samples of a batch as one teacher sees them.

    A sample is one row of every tensor, or, where samples have lengths and lie back to back (packed
    sequences), as many rows as it is long. Cost is counted in rows: a sample costs 1, or its length.

    Args:
        tensors: by name, the rows along their first dimension.
        samples: how many the teacher sees; not all of the batch, if the others go to another one.
        lengths: rows of each sample, one at least; None: one each.
        asked: rows of labels that are wanted of each sample, one at least; None: as many as it has.
        places: for labels that belong to some positions of a batch: int64, for each position the row of its
            labels, or -1.

    Raises:
        WireError: a tensor cannot travel.

    Attributes:
        row_bytes: of one row in all tensors.
        copied_bytes: memory that is held beside the tensors' own, because it had to be made contiguous or
            fetched.
    """

    __slots__ = (
        *("_label_ends", "_rows", "copied_bytes", "layout", "places", "row_bytes", "rows", "samples"),
        *("tensors", "wanted"),
    )

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        samples: int,
        lengths: Sequence[int] | None = None,
        asked: Sequence[int] | None = None,
        places: Tensor | None = None,
    ) -> None:
        self._label_ends = None if asked is None else list(itertools.accumulate(asked, initial=0))
        self.places = places
        self.tensors = tensors
        self.samples = samples
        self.wanted = Wanted.whole(samples, lengths)
        self.rows = self.wanted.size
        self._rows: list[_Rows] = []
        self.layout: Layout = ()
        self.row_bytes = self.copied_bytes = 0
        for name, tensor in tensors.items():
            rows = _Rows(name, tensor, self.rows)
            self._rows.append(rows)
            self.layout += (rows.layout,)
            self.row_bytes += rows.row_bytes
            self.copied_bytes += rows.copied_bytes

    def cost(self, start: int, stop: int) -> int:
        """How many rows some samples have."""
        return self.wanted.cost(start, stop)

    @property
    def labels(self) -> int:
        """Rows of labels of all samples."""
        return self.rows if self._label_ends is None else self._label_ends[-1]

    def asked(self, start: int, stop: int) -> int | None:
        """Rows of labels of some samples; None if they are as many as the samples' own."""
        return None if self._label_ends is None else self._label_ends[stop] - self._label_ends[start]

    def label_rows(self, start: int, stop: int) -> int:
        """Rows of labels of some samples."""
        asked = self.asked(start, stop)
        return self.cost(start, stop) if asked is None else asked

    def label_span(self, start: int, stop: int) -> tuple[int, int]:
        """Their rows among the labels of all samples: the first, and the one behind the last."""
        ends = self._label_ends
        return self.span(start, stop) if ends is None else (ends[start], ends[stop])

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """The rows of some samples: the first, and the one behind the last."""
        ends = self.wanted.ends
        return (start, stop) if ends is None else (ends[start], ends[stop])

    def in_batch(self, samples: Sequence[int]) -> Sequence[int]:
        """Where some of its samples, one at least, stand in the batch, of which others may see the rest."""
        if self.places is None:
            return samples
        sent = (self.places.reshape(self.places.shape[0], -1) >= 0).any(dim=1).nonzero()[:, 0]
        found = [int(sent[sample]) for sample in samples]
        whole = range(found[0], found[-1] + 1)
        return whole if len(whole) == len(found) else found

    def cut(self, start: int, stop: int) -> list[memoryview | Piece]:
        """Some samples of every tensor, in the order of ``layout``: views, no copies."""
        first, last = self.span(start, stop)
        return [rows.cut(first, last) for rows in self._rows]

    def fit_frames(self, flow: Flow, max_frame_bytes: int) -> None:
        """Bound cuts so that none is larger than a frame may be.

        Raises:
            InputError: a fixed cut, or a single sample, does not fit.
        """
        if self.rows * self.row_bytes <= max_frame_bytes:
            return  # all of it would fit into one
        largest = max(self._rows, key=lambda rows: rows.row_bytes)
        most = max_frame_bytes // largest.row_bytes
        size = (flow.task_size or self.samples) if flow.cuts_fixed else 1
        if self.wanted.ends is None:
            rows = size
        else:
            starts = range(0, self.samples, size)
            rows = max(self.wanted.cost(start, min(start + size, self.samples)) for start in starts)
        if rows > most:
            what = "samples" if self.wanted.ends is None else "rows"
            fitting = size * most // rows
            raise InputError(
                f"a task of {rows} {what} of {largest.row_bytes} bytes (input {largest.name!r}) exceeds the "
                f"limit of a frame, {max_frame_bytes} bytes"
                + (f": set task_size to at most {fitting}" if fitting else "")
            )
        self.wanted = self.wanted.cut_at(most)
