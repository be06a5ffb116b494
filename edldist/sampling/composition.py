"""What a data loader is made of: its samplers and its data set, through whatever wraps them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from edldist.errors import ConfigError
from edldist.sampling.sampler import ElasticSampler

__all__ = [
    "Component",
    "StreamLayout",
    "check_order",
    "components",
    "data_set_size",
    "elastic_sampler",
    "is_stateful",
    "reads_together",
    "stream_layout",
    "tell_epoch",
]

_MOST = 64  # components that are looked at, in case they go round in circles

_LOADERS = ("base_dataloader", "base_loader", "dataloader", "data_loader", "loader")
"""Attributes under which prefetchers, Accelerate and others keep the data loader that they wrap."""

_INNER = {
    "data loader": {name: "data loader" for plain in _LOADERS for name in (plain, f"_{plain}")}
    | {"batch_sampler": "batch sampler", "sampler": "sampler", "dataset": "data set"},
    "batch sampler": {"batch_sampler": "batch sampler", "sampler": "sampler"},
    "sampler": {"batch_sampler": "batch sampler", "sampler": "sampler"},
    "data set": {"dataset": "data set"},
}
"""Per kind of component: the attributes that hold others, and of which kind these are."""


class Component(NamedTuple):
    """Something that a data loader consists of, and what holds it; None for the data loader itself."""

    kind: str
    value: Any
    holder: Component | None


def components(data_loader: Iterable[Any]) -> Iterator[Component]:
    """The data loader and what it is made of, outermost first, each once."""
    found = [Component("data loader", data_loader, None)]
    seen = {id(data_loader)}
    for outer in found:
        yield outer
        for attribute, kind in _INNER[outer.kind].items():
            value = getattr(outer.value, attribute, None)
            if value is not None and id(value) not in seen and len(found) < _MOST:
                seen.add(id(value))
                found.append(Component(kind, value, outer))


def elastic_sampler(data_loader: Iterable[Any]) -> ElasticSampler | None:
    """The ``ElasticSampler`` that a data loader takes its lists from, however deep.

    Raises:
        ConfigError: what is around it would merge its lists, or deal them to the ranks a second time.
    """
    made_of = list(components(data_loader))
    component = next((each for each in made_of if isinstance(each.value, ElasticSampler)), None)
    if component is None:
        return None
    if any(type(each.value) is BatchSampler and each.value.sampler is component.value for each in made_of):
        raise ConfigError(
            "the data loader has its ElasticSampler as sampler= and makes batches of its index lists: "
            "it is a batch sampler already, so pass it as batch_sampler="
        )
    holder = component.holder
    while holder is not None:
        ranks = _ranks_served(holder)
        if ranks > 1:
            raise ConfigError(
                f"the {holder.kind} ({type(holder.value).__name__}) deals to {ranks} ranks what the "
                "ElasticSampler inside it has dealt to them already: pass the data loader as you made it, "
                "not as a library prepared it for several ranks"
            )
        holder = holder.holder
    return component.value  # type: ignore[no-any-return]


def is_stateful(data_loader: Iterable[Any]) -> bool:
    """Whether a data loader can say its state and be put back to it.

    One that wraps another may have the methods for what it wraps, and fail where that has none, as those do
    that Accelerate prepared: it is asked. Others are not, because to be asked starts some of them.
    """
    if not (hasattr(data_loader, "state_dict") and hasattr(data_loader, "load_state_dict")):
        return False
    held = (
        getattr(data_loader, name, None)
        for name, kind in _INNER["data loader"].items()
        if kind == "data loader"
    )
    inner = next((each for each in held if each is not None), None)
    if inner is None or is_stateful(inner):
        return True
    try:
        data_loader.state_dict()
    except (AttributeError, NotImplementedError):
        return False
    return True


def tell_epoch(data_loader: Iterable[Any], epoch: int) -> None:
    """Tell a data loader that counts epochs by itself which one is opened now.

    Those that Accelerate prepared set the epoch of their samplers when they are opened: to the number of
    times that they were run through, in this process and to the end.
    """
    for kind, part, _ in components(data_loader):
        counts = kind == "data loader" and isinstance(getattr(part, "iteration", None), int)
        if counts and hasattr(part, "set_epoch"):
            part.set_epoch(epoch)
            return


def reads_together(data_loader: Iterable[Any]) -> bool:
    """Whether a data loader is known to do collectives while it is read.

    Accelerate's dispatcher does: rank 0 reads, and broadcasts what it has read.
    """
    kinds = (kind for each in components(data_loader) for kind in type(each.value).__mro__)
    return any(
        kind.__name__ == "DataLoaderDispatcher" and kind.__module__.startswith("accelerate.")
        for kind in kinds
    )


def data_set_size(data_loader: Iterable[Any]) -> int | None:
    """The number of samples of what a data loader indexes; None if it has none, or that does not say."""
    values = (each.value for each in components(data_loader) if each.kind == "data set")
    data_set = next(values, None)
    # The length of a stream is a guess as a rule, and nothing is indexed by it.
    if isinstance(data_set, IterableDataset) or not hasattr(data_set, "__getitem__"):
        return None
    try:
        return len(data_set)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None


def check_order(data_loader: Iterable[Any]) -> None:
    """Refuse batches that come in the order in which several worker processes have them ready.

    Raises:
        ConfigError: they do.
    """
    loaders = (each.value for each in components(data_loader) if isinstance(each.value, DataLoader))
    if any(loader.num_workers > 1 and not getattr(loader, "in_order", True) for loader in loaders):
        raise ConfigError(
            "the data loader has in_order=False: which batches a loop has had is a matter of timing, so a "
            "restored run would repeat some and lose others. Use in_order=True, or pass checkpointed=False "
            "for a loader whose position does not matter"
        )


class StreamLayout(NamedTuple):
    """What the order of a stream depends on beside itself: who reads it, in which pieces.

    Attributes:
        num_workers: processes that read, in turn, a batch each; 0 for none.
        batch_size: samples of a batch; 0 where the stream makes its own.
    """

    num_workers: int
    batch_size: int

    def same_order(self, other: StreamLayout) -> bool:
        """Whether samples come in the same order: the batches of one reader lie one behind the other."""
        if self.num_workers != other.num_workers:
            return False
        return self.num_workers < 2 or self.batch_size == other.batch_size


def stream_layout(data_loader: Iterable[Any]) -> StreamLayout | None:
    """How a stream (``IterableDataset``) is read; None if there is none in a ``DataLoader``."""
    for kind, value, _ in components(data_loader):
        if kind != "data loader" or not isinstance(value, DataLoader):
            continue
        if isinstance(value.dataset, IterableDataset):
            return StreamLayout(value.num_workers, value.batch_size or 0)
    return None


def _ranks_served(component: Component) -> int:
    """Between how many ranks a sampler divides what it wraps, as far as it says so."""
    if component.kind == "data loader":
        return 1
    known = (getattr(component.value, name, 1) for name in ("num_processes", "num_replicas", "world_size"))
    return max(number if isinstance(number, int) else 1 for number in known)
