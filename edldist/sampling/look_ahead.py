"""Whether an epoch of a data loader may be read before its time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from edldist.sampling.composition import components, elastic_sampler, is_stateful

__all__ = ["obstacle_ahead"]


def obstacle_ahead(data_loader: Iterable[Any]) -> str | None:
    """Why an epoch of it must not be read before the loop has begun it; None if it may.

    What is read ahead has to be what would be read later, and must not be missed if it is dropped.
    """
    if isinstance(data_loader, Iterator):
        return "it is an iterator, which can be run through only once"
    elastic = elastic_sampler(data_loader)
    if elastic is None and is_stateful(data_loader):
        return "it keeps a state of its own (state_dict), which reading ahead would move"
    for kind, part, _ in components(data_loader):
        if part is not elastic and hasattr(part, "set_epoch"):
            return (
                f"the epoch of its {kind} ({type(part).__name__}) is set by the script (set_epoch), which "
                "would come too late"
            )
        if getattr(part, "generator", None) is not None:
            return f"its {kind} ({type(part).__name__}) draws from a generator of its own"
    return None
