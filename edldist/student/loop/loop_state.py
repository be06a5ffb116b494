"""What checkpoints keep of a loop over a data loader: where it is, and whose labels it has learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edldist.sampling.position import Position
from edldist.student.loop.consumption import Consumption
from edldist.student.loop.epochs import Epochs
from edldist.student.loop.labelling import Labelling

__all__ = ["LoopState"]


class LoopState:
    """Saves and restores one loop. Owned by the thread of the training loop.

    Args:
        position: of the loop.
        epochs: its loops, which a restore ends.
        consumption: is told that the position moved.
        labelling: knows the teachers, and takes no others from a restore on.
    """

    def __init__(
        self, position: Position, epochs: Epochs, consumption: Consumption, labelling: Labelling
    ) -> None:
        self._position = position
        self._epochs = epochs
        self._consumption = consumption
        self._labelling = labelling

    def shared(self) -> dict[str, Any]:
        """What is the same on all ranks."""
        return self._position.state_dict() | self._labelling.known.shared_state()

    def of_rank(self) -> dict[str, Any] | None:
        """What differs by rank; None if nothing does."""
        own = self._labelling.known.rank_state()
        position = self._position.rank_state_dict()
        return position if not own else (position or {}) | own

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to where ``shared`` was taken.

        Raises:
            CheckpointError: it is of another kind of data loader, or cannot be read.
        """
        self._labelling.check_process()
        former = self._labelling.known.read(state)
        self._epochs.forget()
        self._position.load_state_dict(state)
        self._consumption.moved()
        self._labelling.expect(former)

    def restore_rank(self, state: Mapping[str, Any] | None) -> None:
        """After that, what ``of_rank`` was on this rank; None where none was saved.

        Raises:
            CheckpointError: the position needs one, or it cannot be read.
        """
        former = self._labelling.known.read(state or {})
        self._position.load_rank_state_dict(state)
        self._consumption.moved()
        self._labelling.expect(former)
