"""Whether the ranks of a group train together on different samples, as far as it shows."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler

from edldist.ranks.placement import placement
from edldist.sampling.composition import data_set_size

__all__ = ["check_dealing", "read_whole"]

logger = logging.getLogger(__name__)

# What Accelerate prepares deals by another batch sampler, if there are several processes.
_DEAL_BY_SAMPLER = (
    ("torch.utils.data.dataloader", "DataLoader"),
    ("accelerate.data_loader", "DataLoaderShard"),
)


def check_dealing(data_loader: Iterable[Any]) -> None:
    """Warn, on rank 0, of ranks that do not train together: each takes all samples, or a model of its own."""
    here = placement()
    if here.world_size == 1 or here.rank != 0:
        return
    if _accelerated_alone():
        logger.warning(
            "%d ranks were started, and Accelerate takes each for the only one (num_processes is 1), so that "
            "each trains a model of its own, on whatever samples it gets. Use Accelerator(cpu=True) for "
            "ranks on CPUs. (If something else averages the gradients of the ranks, all is well.)",
            here.world_size,
        )
        return
    if (size := read_whole(data_loader)) is None:
        return
    logger.warning(
        "each of %d ranks goes through all %d samples of its data set: nothing deals them to the ranks, so "
        "that each sample is labelled, and counts, %d times an epoch. Use DataLoader(dataset, batch_sampler="
        "edldist.ElasticSampler(len(dataset), global_batch_size)), or sampler=DistributedSampler(dataset), "
        "or a data loader that Accelerate prepared, with Accelerator(cpu=True) for ranks on CPUs. (If "
        "every rank has a data set of its own, all is well.)",
        *(here.world_size, size, here.world_size),
    )


def read_whole(data_loader: Iterable[Any]) -> int | None:
    """How many samples a rank reads of it in an epoch, if these are certainly its whole data set.

    That is so for a plain ``DataLoader`` with the samplers that it makes by itself, and for one that
    Accelerate prepared without dealing it out, because it took this rank for the only process. Whatever
    else a library prepared, a sampler of another kind, a stream, or any other iterable may deal to the ranks
    in a way of its own, and is believed to.
    """
    if not isinstance(data_loader, DataLoader) or _kind(data_loader) not in _DEAL_BY_SAMPLER:
        return None
    if data_loader.batch_sampler is not None and type(data_loader.batch_sampler) is not BatchSampler:
        return None
    sampler: Any = data_loader.sampler
    size = data_set_size(data_loader)
    if isinstance(sampler, RandomSampler):
        return size if not sampler.replacement and sampler.num_samples == size else None
    return size if type(sampler) is SequentialSampler else None


def _accelerated_alone() -> bool:
    """Whether Accelerate is in use here, and knows of no process but this one."""
    module = sys.modules.get("accelerate.state")
    kind: Any = getattr(module, "PartialState", None)  # absent while the module is being imported
    return kind is not None and kind._shared_state.get("num_processes") == 1


def _kind(value: object) -> tuple[str, str]:
    return type(value).__module__, type(value).__qualname__
