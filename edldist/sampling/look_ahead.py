"""What a data loader is made of, and whether an epoch of it may be read before its time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from edldist.sampling.sampler import ElasticSampler

__all__ = ["elastic_sampler", "is_stateful", "obstacle_ahead"]

_DEEPEST = 8  # data sets within data sets that are looked into


def obstacle_ahead(data_loader: Iterable[Any]) -> str | None:
    """Why an epoch of it must not be read before the loop has begun it; None if it may.

    What is read ahead has to be what would be read later, and must not be missed if it is dropped.
    """
    if isinstance(data_loader, Iterator):
        return "it is an iterator, which can be run through only once"
    elastic = elastic_sampler(data_loader)
    if elastic is None and is_stateful(data_loader):
        return "it keeps a state of its own (state_dict), which reading ahead would move"
    for name, part in _parts(data_loader):
        if part is not elastic and hasattr(part, "set_epoch"):
            return (
                f"the epoch of its {name} ({type(part).__name__}) is set by the script (set_epoch), which "
                "would come too late"
            )
        if getattr(part, "generator", None) is not None:
            return f"its {name} ({type(part).__name__}) draws from a generator of its own"
    return None


def elastic_sampler(data_loader: Iterable[Any]) -> ElasticSampler | None:
    for name in ("batch_sampler", "sampler"):
        sampler = getattr(data_loader, name, None)
        if isinstance(sampler, ElasticSampler):
            return sampler
    return None


def is_stateful(data_loader: Iterable[Any]) -> bool:
    return hasattr(data_loader, "state_dict") and hasattr(data_loader, "load_state_dict")


def _parts(data_loader: Any) -> Iterator[tuple[str, Any]]:
    """A data loader, its samplers, its data set and what these wrap."""
    yield "data loader", data_loader
    for name in ("batch_sampler", "sampler", "dataset"):
        part, inner = getattr(data_loader, name, None), "sampler" if name != "dataset" else name
        for _ in range(_DEEPEST):
            if part is None:
                break
            yield name.replace("_", " "), part
            part = getattr(part, inner, None)
