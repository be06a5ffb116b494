"""A loader's epochs, each run by a loop of its own: the one that began last is the one that goes on."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from edldist.errors import ConfigError, LoaderClosedError
from edldist.student.loop.arrivals import Arrivals, Pair
from edldist.student.loop.consumption import Consumption
from edldist.student.loop.gradient_state import LoopEnd
from edldist.student.loop.labelling import Labelling
from edldist.student.loop.reading import ReadAhead
from edldist.student.loop.step_weights import StepWeights
from edldist.student.service.trail import LOOP
from edldist.tracing.kinds import Kind

__all__ = ["Epochs"]

logger = logging.getLogger(__name__)


class Epochs:
    """Gives loops their batches, one epoch each.

    ::

        begin --loop--> in an epoch --its last batch consumed, or left--> between epochs --begin--> ...

    An epoch that was consumed keeps what was read of the next one; one that was left early forgets what was
    read. Owned by the thread of the training loop, but for a loop that is forgotten, which may end anywhere.

    Args:
        data_loader: what is read.
        ahead: reads it.
        arrivals: brings its batches with their labels.
        consumption: counts them.
        weights: of the steps.
        labelling: what labels them, in the process that it was made in.
        served: alive until the loader is closed.
    """

    def __init__(
        self,
        data_loader: Iterable[Any],
        ahead: ReadAhead,
        arrivals: Arrivals,
        consumption: Consumption,
        weights: StepWeights,
        labelling: Labelling,
        served: weakref.finalize[[], object],
    ) -> None:
        self._ahead = ahead
        self._arrivals = arrivals
        self._consumption = consumption
        self._weights = weights
        self._labelling = labelling
        self._served = served
        self._loop_end = LoopEnd(data_loader, arrivals.at_end)
        self._tape = labelling.service.recorder[LOOP]
        self._iteration = 0
        self._over_said = False

    def begin(self) -> int:
        """A loop begins, and any other is over; returns its number.

        Raises:
            LoaderClosedError: the loader was closed.
            ConfigError: this is a forked process.
        """
        self._iteration += 1
        self._check_current(self._iteration)
        return self._iteration

    def loop(self, iteration: int, loader: object) -> Iterator[Pair]:
        """The batches of the epoch that is due, for the loop of that number.

        Args:
            loader: whose they are; there as long as the loop is.
        """
        if self._ahead.in_epoch:
            self._leave()
        return self._pairs(iteration, loader)

    def _pairs(self, iteration: int, loader: object) -> Iterator[Pair]:
        self._check_current(iteration)
        if self._ahead.over:
            self._say_that_it_is_over()
            return
        thread = threading.get_ident()
        try:
            if not self._ahead.begin():
                self._arrivals.clear()
                self._ahead.start()
            self._consumption.note_position()
            with self._loop_end.entered():
                while (arrival := self._arrivals.next()) is not None:
                    pairs = self._consumption.of(arrival)
                    number, samples = arrival.batch.number, arrival.batch.samples
                    since = self._tape.now() if self._tape.on else None
                    del arrival
                    while pairs:
                        # Held by nobody here while the loop works on it, nor while the next one is fetched.
                        yield pairs.pop()
                        if since is not None and self._tape.on:
                            self._tape.write(Kind.STEP, since, self._tape.now(), number, samples)
                        self._check_current(iteration)
            self._weights.end_of_epoch()
        finally:
            # A loop that was not left but forgotten ends in whichever thread looks for garbage, the I/O
            # thread in mid-change too: the next loop leaves the epoch then. One that is found when the
            # interpreter ends has nothing to leave, nor any module to ask.
            current = self._served.alive and iteration == self._iteration
            if current and thread == threading.get_ident() and not self._labelling.forked:
                self._leave()

    def forget(self) -> None:
        """The position becomes another one: no loop goes on, and what was read for it is of no use."""
        self._iteration += 1
        self._arrivals.clear()

    def go_to(self, epoch: int) -> None:
        """See ``DistillLoader.set_epoch``."""
        self._labelling.check_process()
        if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
            raise ConfigError(f"set_epoch({epoch!r}): use the number of an epoch, from 0")
        if self._ahead.consumed:
            self._leave()
        if self._ahead.in_epoch or epoch != self._ahead.position.epoch:
            if self._ahead.in_epoch:
                self._iteration += 1
            self._arrivals.clear()
            self._ahead.position.set_epoch(epoch)
            self._consumption.moved()

    def ends(self) -> bool:
        """See ``DistillLoader.ends_epoch``."""
        if not self._ahead.in_epoch:
            raise LoaderClosedError("ends_epoch: no loop runs over this DistillLoader")
        return self._arrivals.at_end()

    # --- inside -------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """No loop goes on with this epoch.

        What was read of the next one stays if this one was consumed, whether its loop saw the end or not.
        """
        if self._ahead.consumed:
            self._ahead.end()
            self._consumption.note_position()
        if self._ahead.in_epoch or not self._ahead.holds_next:
            self._arrivals.clear()

    def _check_current(self, iteration: int) -> None:
        self._labelling.check_process()
        if not self._served.alive:
            raise LoaderClosedError("this DistillLoader was closed; make a new one")
        if iteration != self._iteration:
            raise LoaderClosedError(
                "another iteration of this DistillLoader has begun, or it was restored, so that this one has "
                "ended. It has one position: make a second one to iterate twice at a time, as in zip(a, b)"
            )

    def _say_that_it_is_over(self) -> None:
        if not self._over_said:
            self._over_said = True
            logger.warning(
                "nothing is left to iterate: the loop is behind epochs=%d, as a run is that was restored "
                "behind its last step. For more, make a DistillLoader with more epochs",
                self._ahead.epochs,
            )
