"""What the loop is told of a batch that has no labels, when it is due."""

from __future__ import annotations

from edldist.errors import ContractError, LabelMemoryError, PoisonTaskError
from edldist.student.batch.batch import OpenBatch
from edldist.student.queue.outcomes import Grant, Poison
from edldist.wording import in_words

__all__ = ["no_memory", "poisoned", "refused"]


def poisoned(poison: Poison) -> PoisonTaskError:
    """Several attempts could not label some of its samples, told by their places in it."""
    return PoisonTaskError(poison.teacher, poison.batch, poison.samples, poison.attempts)


def refused(batch: OpenBatch, grant: Grant, error: str) -> ContractError:
    """No attempt at some of its samples would end otherwise."""
    samples = batch.inputs_of(grant.teacher).in_batch(range(grant.start, grant.stop))
    return ContractError(
        f"teacher {grant.teacher!r} cannot label what this student sends (samples {in_words(samples)} of "
        f"batch {grant.batch}); no other attempt would end differently:\n{error}"
    )


def no_memory(
    grant: Grant, error: LabelMemoryError, open_batches: int, nbytes: int, bound: int
) -> LabelMemoryError:
    """This rank has no memory for its labels."""
    due = LabelMemoryError(
        f"batch {grant.batch}, labels of teacher {grant.teacher!r}: {error}. {open_batches} open batches "
        f"hold {nbytes:,} bytes (max_bytes={bound:,}). Let fewer be open (lower high_watermark or "
        "max_bytes), make batches smaller, take a codec with smaller labels, or pin_memory=False if "
        "pinned memory is what is short"
    )
    due.__cause__ = error
    return due
