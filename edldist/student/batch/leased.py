"""What a pull is answered with."""

from __future__ import annotations

from typing import NamedTuple

from edldist.student.batch.batch import OpenBatch
from edldist.student.queue.outcomes import Grant

__all__ = ["Leased"]


class Leased(NamedTuple):
    """Leases of a pull, the batch of each, and the number of batches that the loop could take now."""

    grants: list[Grant]
    batches: list[OpenBatch]
    buffered: int
