"""What becomes of a batch that has arrived: it is counted, weighed, and given to the loop or left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from edldist.clock import Clock
from edldist.labels.fingerprint import Fingerprint
from edldist.sampling.position import Position
from edldist.student.loop.arrivals import Arrival, Arrivals, Pair
from edldist.student.loop.figures import LoopFigures
from edldist.student.loop.left_out import LeftOut, Start
from edldist.student.loop.step_weights import StepWeights
from edldist.student.teachers.known_teachers import KnownTeachers

__all__ = ["Consumption"]


class Consumption:
    """Counts one loop's batches as consumed. Owned by the thread of the training loop.

    Args:
        position: of the loop; moved by each batch.
        figures: what the loop has had.
        weights: of its steps.
        known: whose labels it has learnt from.
        used: whose labels were used so far, by group.
        arrivals: has another batch for a step whose own could not be labelled.
        clock: of the figures.
        one_rank: whether there is but one, so that a batch without labels needs no step.

    Attributes:
        loss_weight: see ``DistillLoader.loss_weight``.
        start: where the batch that the loop had last begins; before the first one, and after a restore, where
            the position is.
        left_out: what the loop does not get.
    """

    def __init__(
        self,
        position: Position,
        figures: LoopFigures,
        weights: StepWeights,
        known: KnownTeachers,
        used: Callable[[], Mapping[str, Fingerprint]],
        arrivals: Arrivals,
        clock: Clock,
        one_rank: bool,
    ) -> None:
        self._position = position
        self._figures = figures
        self._weights = weights
        self._known = known
        self._used = used
        self._arrivals = arrivals
        self._clock = clock
        self._one_rank = one_rank
        self.loss_weight = 1.0
        self.left_out = LeftOut()
        self.start: Start = self._here

    @property
    def _here(self) -> Start:
        return self._position.epoch, self._position.samples

    def of(self, arrival: Arrival) -> list[Pair]:
        """Count a batch as consumed; what the loop gets for it, which is nothing where it takes no step."""
        batch, pair = arrival
        start = self._here
        counted = self._position.consume(batch.mark, batch.samples)
        self.note_position()
        if not self._known.complete:
            self._known.consumed(self._used())
        if self.left_out.takes(start):  # by all ranks, so that nobody waits for this step
            self._figures.left_out += counted if self.left_out.is_new(start) else 0
            return []
        self.start = start
        self._figures.missed += batch.missed
        if pair is not None:
            self._figures.took(counted, self._clock.monotonic())
            self.loss_weight = self._weights.of(batch.mark.part, counted)
            return [pair]
        assert batch.failure is not None
        self._figures.skipped += counted
        if self._one_rank:
            return []
        # The other ranks take this step: take it too, with a batch that counts for nothing.
        pair = self._arrivals.stand_in(batch.failure)
        self.loss_weight = self._weights.of(batch.mark.part, 0)
        return [pair]

    def note_position(self) -> None:
        """Show where the loop is."""
        self._figures.epoch, self._figures.epoch_samples = self._here

    def moved(self) -> None:
        """The position is another one, and no batch led there."""
        self.note_position()
        self.left_out.moved()
        self.start = self._here
