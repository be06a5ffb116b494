"""Copies of the state that a data loader keeps of itself."""

from __future__ import annotations

import copy
from typing import Any

from edldist.errors import CheckpointError

__all__ = ["OwnState"]


class OwnState:
    """A data loader with ``state_dict`` and ``load_state_dict``, such as torchdata's ``StatefulDataLoader``.

    Such a state may be one object that the data loader changes while it reads on, and it may go on to
    change what it was given back: what is kept here is copied on both ways.
    """

    def __init__(self, data_loader: Any) -> None:
        self._data_loader = data_loader
        self._first: Any = None  # the state at the start of the first epoch
        self._moved = False  # it may be somewhere else than where it was made

    def taken(self) -> Any:
        """A copy of the state as it is now."""
        return copy.deepcopy(self._data_loader.state_dict())

    def taken_at_start(self) -> Any:
        """The same, of an epoch that is open and of which nothing was read."""
        state = self.taken()
        if not self._moved:
            self._first, self._moved = state, True
        return state

    def load(self, state: Any) -> None:
        """Go to a state that was taken; None for that before the first epoch was opened.

        Raises:
            CheckpointError: None, and the data loader was moved before anything was read of it.
        """
        if state is None:
            if not self._moved:
                return
            state = self._first
            if state is None:
                raise CheckpointError(
                    "the saved position is that before the first batch, and the data loader "
                    f"({type(self._data_loader).__name__}) has been moved to another one since it was made: "
                    "make a new data loader"
                )
        self._moved = True
        self._data_loader.load_state_dict(copy.deepcopy(state))
