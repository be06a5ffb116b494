"""What a rank's mean loss is to be multiplied by, so that ranks with unlike parts count by their samples."""

from __future__ import annotations

import torch
import torch.distributed as dist

from edldist.errors import ConfigError, InputError
from edldist.ranks.agreement import Ranks
from edldist.ranks.placement import in_process_group, placement
from edldist.sampling.sampler import Part

__all__ = ["StepWeights"]


class StepWeights:
    """Weighs one rank's steps.

    By itself each rank knows what the ``ElasticSampler`` dealt to every one of them, and nothing of what
    became of it. So a step for which a rank has nothing to count, because its batch was skipped, is smaller
    than others: the samples of that batch add nothing to the gradient, and the others weigh as they would
    have done beside them.

    Agreed, the ranks tell each other in every step how many samples each of them has really got: the
    gradient is that of the mean over these, whatever was skipped, padded or left out by a collate function.

    Args:
        agreed: whether to do so. Then ``of`` and ``end_of_epoch`` are collectives over a gloo group of
            their own: every rank takes every step, as under DDP.
    """

    def __init__(self, agreed: bool) -> None:
        self._agreed = agreed
        self._ranks: Ranks | None = None

    def of(self, part: Part | None, counted: int) -> float:
        """The weight of a step.

        Args:
            part: what the ``ElasticSampler`` dealt to this rank, if there is one.
            counted: samples of this rank that count; 0 for a batch that was skipped.

        Raises:
            InputError: other ranks have no batch left for this step.
        """
        if self._agreed and placement().world_size > 1:
            ranks, total = self._sum(counted, ended=False)
            return ranks.world_size * counted / total if total else 0.0
        if not counted:
            return 0.0
        return 1.0 if part is None else part.weight

    def end_of_epoch(self) -> None:
        """This rank has no batch left.

        Raises:
            InputError: other ranks have.
        """
        if self._agreed and placement().world_size > 1:
            self._sum(0, ended=True)

    def _sum(self, counted: int, ended: bool) -> tuple[Ranks, int]:
        if self._ranks is None:
            if not in_process_group():
                raise ConfigError(
                    "agree_weights=True: there are several ranks, and no process group in which they could "
                    "agree: call torch.distributed.init_process_group() before the first loop"
                )
            self._ranks = Ranks()
        ranks = self._ranks
        sums = torch.tensor([counted, int(ended)], dtype=torch.int64, device="cpu")
        dist.all_reduce(sums, group=ranks.group)
        total, at_end = sums.tolist()
        if 0 < at_end < ranks.world_size:
            raise InputError(
                f"{at_end} of {ranks.world_size} ranks have no batch left in this epoch, and the others have "
                "(agree_weights=True): give all ranks as many batches, as an ElasticSampler does"
            )
        return ranks, total
