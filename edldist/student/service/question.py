"""Samples of a batch about which every worker of a teacher is asked, to compare their answers."""

from __future__ import annotations

from collections.abc import Sequence

from edldist.student.batch.teacher_inputs import TeacherInputs
from edldist.wire.messages import Lease, LeaseGroup, TensorSpec
from edldist.wire.transport import Piece, payload

__all__ = ["Question"]

_MOST_SAMPLES = 32
_MOST_ROWS = 1024
_MOST_BYTES = 8 << 20


class Question:
    """Up to 32 samples, kept in memory of its own for as long as a student lives.

    A worker is asked about all of them, and, to see whether its answer depends on what else is in a pass or
    on chance, about the first half once more. Sequences, or large samples, are fewer: as many as have 1,024
    rows and 8 MiB together, one at least.

    Args:
        inputs: what the teacher sees of a batch, of which it labels something.
        own_pass: whether labels must depend on nothing but their samples.
        max_frame_bytes: the largest frame that may travel; a single sample fits.

    Attributes:
        samples: how many there are.
        rows: of labels, for all and for the first half.
        varied: whether two of the samples differ.
    """

    __slots__ = ("_frames", "_layout", "_own_pass", "_shares", "rows", "samples", "varied")

    def __init__(self, inputs: TeacherInputs, own_pass: bool, max_frame_bytes: int) -> None:
        start, end = inputs.wanted.runs[0]
        most = min(_MOST_ROWS, min(_MOST_BYTES, max_frame_bytes) // max(1, inputs.row_bytes))
        most_samples = min(end, start + _MOST_SAMPLES)
        stop = max(start + 1, inputs.wanted.fitting(start, most_samples, max(1, most)))
        self._own_pass = own_pass
        self.samples = stop - start
        stops = (stop, start + max(1, self.samples // 2))
        self._layout = inputs.layout
        self._frames = [
            [memoryview(bytes(payload(piece))) for piece in inputs.cut(start, each)] for each in stops
        ]
        self._shares = [(each - start, inputs.cost(start, each), inputs.asked(start, each)) for each in stops]
        self.rows = [inputs.label_rows(start, each) for each in stops]
        first = [bytes(payload(piece)) for piece in inputs.cut(start, start + 1)]
        self.varied = any(
            [bytes(payload(piece)) for piece in inputs.cut(at, at + 1)] != first
            for at in range(start + 1, stop)
        )

    def ask(self, leases: Sequence[int]) -> tuple[list[LeaseGroup], list[memoryview | Piece]]:
        """The groups and frames of a message: of all samples, and of the first half for a second lease."""
        groups: list[LeaseGroup] = []
        frames: list[memoryview | Piece] = []
        for lease, (samples, cost, labels), own in zip(leases, self._shares, self._frames, strict=False):
            asked = Lease(
                id=lease, samples=samples, cost=cost, own_pass=self._own_pass, labels=labels, compared=True
            )
            tensors = [
                TensorSpec(name=name, dtype=dtype, shape=[cost, *shape])
                for name, dtype, shape in self._layout
            ]
            groups.append(LeaseGroup(leases=[asked], tensors=tensors))
            frames += own
        return groups, frames
