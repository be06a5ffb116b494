"""Which leased tasks travel together: small ones share frames, large ones leave as views."""

from __future__ import annotations

from collections.abc import Sequence

from edldist.labels.grammar import CodecSpec
from edldist.student.batch.batch import OpenBatch
from edldist.student.batch.teacher_inputs import TeacherInputs
from edldist.student.queue.outcomes import Grant
from edldist.wire.messages import Lease, LeaseGroup, TensorSpec
from edldist.wire.transport import Piece, payload

__all__ = ["group"]

_GROUP_BYTES = 128 << 10
"""Copying this much costs about what a frame of its own does."""


def group(
    grants: Sequence[Grant], batches: Sequence[OpenBatch], max_frame_bytes: int
) -> tuple[list[LeaseGroup], list[memoryview | Piece]]:
    """The groups of a message, and its frames.

    Args:
        grants: leases in the order in which they travel.
        batches: the batch of each.
        max_frame_bytes: the largest frame that may travel; no grant needs a larger one by itself.
    """
    groups: list[LeaseGroup] = []
    frames: list[memoryview | Piece] = []
    run: list[tuple[Grant, TeacherInputs]] = []
    codec: CodecSpec | None = None  # of the run
    nbytes = 0
    most = min(_GROUP_BYTES, max_frame_bytes)
    for grant, batch in zip(grants, batches, strict=True):
        inputs = batch.inputs_of(grant.teacher)
        more = inputs.row_bytes * grant.cost
        if run and (nbytes + more > most or inputs.layout != run[0][1].layout or batch.codec != codec):
            _close(run, codec, groups, frames)
            run, nbytes = [], 0
        codec = batch.codec
        run.append((grant, inputs))
        nbytes += more
    if run:
        _close(run, codec, groups, frames)
    return groups, frames


def _close(
    run: Sequence[tuple[Grant, TeacherInputs]],
    codec: CodecSpec | None,
    groups: list[LeaseGroup],
    frames: list[memoryview | Piece],
) -> None:
    cuts = [inputs.cut(grant.start, grant.stop) for grant, inputs in run]
    rows = sum([grant.cost for grant, _ in run])
    groups.append(
        LeaseGroup(
            leases=[
                Lease(
                    id=grant.lease,
                    samples=grant.stop - grant.start,
                    cost=grant.cost,
                    own_pass=grant.own_pass,
                    labels=inputs.asked(grant.start, grant.stop),
                )
                for grant, inputs in run
            ],
            tensors=[
                TensorSpec(name=name, dtype=dtype, shape=[rows, *shape])
                for name, dtype, shape in run[0][1].layout
            ],
            codec=codec,
        )
    )
    if len(cuts) == 1:
        frames += cuts[0]
    else:
        frames += [memoryview(b"".join(map(payload, parts))) for parts in zip(*cuts, strict=True)]
