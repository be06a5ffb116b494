"""What Accelerate wants to know of the data loader that a loop runs over: whether this is its last batch.

Accelerate keeps that in one object of the process, its ``GradientState``: ``accumulate`` takes a step at the
end of an epoch, and ``gather_for_metrics`` leaves out what pads the last batch. A data loader that Accelerate
prepared enters itself when reading it begins and says that it has ended when it was read to its end, which
is long before the loop is there. So what it enters while it is read ahead is taken out again, and whoever
reads it ahead is entered instead. Where Accelerate was not imported there is nothing to do, and nothing is
imported here.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from edldist.sampling.composition import components

__all__ = ["LoopEnd", "reading_unseen"]


class LoopEnd:
    """Stands in Accelerate's ``GradientState`` for a loop that runs.

    Args:
        data_loader: what is read, prepared by Accelerate or not.
        at_end: whether the loop has the last batch of its epoch.
    """

    def __init__(self, data_loader: Iterable[Any], at_end: Callable[[], bool]) -> None:
        self._data_loader = data_loader
        self._at_end = at_end

    @property
    def end_of_dataloader(self) -> bool:
        return self._at_end()

    @property
    def remainder(self) -> int:
        """Samples of the last batch, over all ranks, without padding, as Accelerate counts; -1: unknown."""
        for kind, part, _ in components(self._data_loader):
            if kind == "data loader" and isinstance(known := getattr(part, "remainder", None), int):
                return known
        return -1

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """A loop runs."""
        state = _gradient_state()
        if state is None:
            yield
            return
        state._add_dataloader(self)
        try:
            yield
        finally:
            state._remove_dataloader(self)


@contextlib.contextmanager
def reading_unseen() -> Iterator[None]:
    """What a data loader enters or removes inside is as it was afterwards."""
    state = _gradient_state()
    if state is None:
        yield
        return
    entered = state.dataloader_references
    try:
        yield
    finally:
        state.dataloader_references = entered


def _gradient_state() -> Any:
    """Accelerate's object, if there is one in this process."""
    module = sys.modules.get("accelerate.state")
    kind: Any = getattr(module, "GradientState", None)  # absent while the module is being imported
    return None if kind is None or not kind._shared_state else kind()
