"""One composition of the group, as a block of the training script: it ends where the group changes."""

from __future__ import annotations

import contextlib
import logging
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from edldist.checkpoint.checkpointer import Checkpointer
from edldist.checkpoint.snapshot import Stateful
from edldist.errors import ConfigError, RegroupError
from edldist.lifecycle import stopping
from edldist.live.averaging import Heard, average_gradients
from edldist.live.collective import first_line
from edldist.live.handover import Progress
from edldist.ranks.placement import placement

if TYPE_CHECKING:
    from edldist.live.group import LiveGroup

__all__ = ["LiveGeneration"]

logger = logging.getLogger(__name__)

_LEAVE_AFTER_S = 1.0
"""A rank that alone is asked to stop goes after so long: when all are, they are told one after the other."""


class _Optimizer(Protocol):
    param_groups: list[dict[str, Any]]

    def step(self) -> Any: ...


class LiveGeneration:
    """The group of ranks as it is now; made by ``LiveGroup``, and entered with ``with``.

    Whatever depends on who is in the group is made within: data loaders, the ``DistillLoader``, the
    ``Checkpointer``, a ``DistributedDataParallel``. The block ends by itself at a change, in ``step`` or in
    any collective that fails, and the ``for`` over the group goes on with the next generation.

    Attributes:
        number: grows from one to the next; 0 where the group never changes in process.
        rank, world_size: of this process.
        state: what a checkpoint has to hold: the group's, and what ``resume`` was given.
    """

    def __init__(self, group: LiveGroup, number: int) -> None:
        here = placement()
        self.number, self.rank, self.world_size = number, here.rank, here.world_size
        self.state: dict[str, Stateful] = dict(group.state)
        self._group = group
        self._places: dict[str, Stateful] = {}
        self._closers: list[Any] = []
        self._all_asked = False
        self._waiting = False
        self._over: RegroupError | None = None

    def __enter__(self) -> LiveGeneration:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None and self._over is not None:
            logger.warning("the script went on behind an error that was for edldist: let it pass next time")
            error = self._over
        change = error is not None and self._group.live and self._group.is_change(error)
        if change:
            self._hand_on()
        for closer in reversed(self._closers):
            if change and isinstance(closer, Checkpointer):
                closer.abandon()
            else:
                with contextlib.suppress(Exception) if change else contextlib.nullcontext():
                    closer.__exit__(kind, error, trace)
        if error is None and self._is_cut_off():
            change, error = True, RegroupError(self._group.lost())
        if change:
            assert error is not None
            logger.warning("%s: going on with those that are here", first_line(error))
            self._group.dissolve(error)
            return True
        self._group.finish(error)
        return False

    def resume(self, checkpointer: Checkpointer | None = None, **places: Stateful) -> int:
        """Go on from where the group is: from memory where a rank has it, else from the newest checkpoint.

        Args:
            checkpointer: restores and is closed at the end of the block; None: what is not in memory is new.
            places: objects that belong to this generation, as ``loader=loader``: their positions go on, they
                become part of ``state``, and what can be closed is closed with the block.

        Returns:
            Steps done so far; 0 at the very beginning. The same on all ranks.

        Raises:
            ConfigError: a name of ``places`` is taken; or a data loader has a position of each rank's own, of
                which the others know nothing: use an ``ElasticSampler``.
            CheckpointError: as ``Checkpointer.restore``.
        """
        if taken := places.keys() & self.state.keys():
            raise ConfigError(f"resume: {sorted(taken)} are names of the group's state: use others")
        for name, place in places.items():
            own = getattr(place, "rank_state_dict", lambda: None)()
            if self._group.live and own is not None:
                raise ConfigError(
                    f"resume({name}=...): its data loader has a position of each rank's own, and nobody else "
                    "could go on there once a rank is gone: read the data by an edldist.ElasticSampler"
                )
        self._places |= places
        self.state |= places
        self._closers += [each for each in (*places.values(), checkpointer) if hasattr(each, "__exit__")]
        known = self._group.progress
        if known.step < 0 and checkpointer is not None:
            step = checkpointer.restore(self.state)
            if step is not None:
                self._done(step)
        elif known.step >= 0:
            for name, place in places.items():
                if handed := self._group.handed.pop(name, None):
                    place.take_on(handed)  # type: ignore[attr-defined]
                if name in known.positions:
                    place.load_state_dict(known.positions[name])
        return max(0, self._group.progress.step)

    def step(self, optimizer: _Optimizer, averaged: bool = False) -> int:
        """Average the gradients over the ranks, and take the optimizer's step: all ranks do, or none.

        Args:
            optimizer: over the same parameters, in the same order, on every rank.
            averaged: the gradients are averaged already, as by ``DistributedDataParallel``.

        Returns:
            Steps done, this one included.

        Raises:
            RegroupError: the group has changed; the step was not taken, and its batch comes again. For the
                ``with`` alone: do not catch it.
            SystemExit: this rank alone was asked to stop; the others go on without it.
        """
        asked = stopping.asked()
        try:
            heard = self._meet([] if averaged else optimizer.param_groups, asked)
        except RegroupError as exc:
            self._over = exc
            raise
        optimizer.step()
        self._all_asked, self._waiting = heard.asked == self.world_size, heard.waiting > 0
        self._done(max(0, self._group.progress.step) + 1)
        if asked and not self._all_asked and self._group.asked_for_s() > _LEAVE_AFTER_S:
            logger.warning("asked to stop: leaving the %d others to go on", self.world_size - 1)
            sys.exit(0)
        return self._group.progress.step

    @property
    def all_asked(self) -> bool:
        """Whether every rank was asked to stop, as of the last step: what ``should_stop`` says."""
        return self._all_asked

    def _hand_on(self) -> None:
        """Keep labels that are here for the loaders of the next generation."""
        for name, place in self._places.items():
            try:
                self._group.handed[name] = getattr(place, "hand_on", lambda: None)()
            except Exception:
                logger.warning("labels of %s are computed once more", name, exc_info=True)

    def _is_cut_off(self) -> bool:
        """Whether the script's last checkpoint failed for want of a rank: the others write it once more."""
        failed = any(isinstance(each, Checkpointer) and each.failures for each in self._closers)
        return failed and self._group.live and not stopping.asked() and bool(self._group.lost())

    def _meet(self, groups: list[dict[str, Any]], asked: bool) -> Heard:
        """Average the gradients of these parameters, and hear what all ranks have heard.

        Raises:
            RegroupError: the group has lost a rank; or one wants to join, as all know since the last step.
        """
        if self._waiting:
            raise RegroupError("ranks want to join")
        waiting = self._group.waiting > 0
        if self.world_size > 1:
            parameters = [parameter for group in groups for parameter in group["params"]]
            heard = average_gradients(parameters, asked, waiting)
        else:
            heard = Heard(int(asked), int(waiting))
        if reason := self._group.lost():
            raise RegroupError(reason)
        return heard

    def _done(self, step: int) -> None:
        self._group.note(Progress(step, {name: place.state_dict() for name, place in self._places.items()}))
