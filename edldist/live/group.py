"""``LiveGroup``: ranks that keep weights, optimizer and position in memory when their group changes.

::

    group = edldist.LiveGroup({"model": model, "optimizer": optimizer})
    for generation in group:                # one for each composition of the group
        with generation:                    # ends where the group changes; the for goes on with the next
            loader = edldist.DistillLoader(train_loader(), ...)
            checkpointer = edldist.Checkpointer("checkpoints")
            step = generation.resume(checkpointer, loader=loader)
            for epoch in range(loader.epoch, EPOCHS):
                for batch, labels in loader:
                    loss = ...
                    optimizer.zero_grad()
                    (loss * loader.loss_weight).backward()
                    step = generation.step(optimizer)
                    if checkpointer.due(step):
                        checkpointer.save(step, generation.state)

Under ``edldist student --resize live`` (``student: {resize: live}``) a rank that dies, freezes, leaves or
joins ends no process. Under torchrun, and alone, the same script runs as one generation, and torchrun
restarts it.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from edldist.checkpoint.snapshot import Stateful
from edldist.errors import ConfigError, EdlDistError, RegroupError
from edldist.lifecycle import exit_hooks, group_change, stopping
from edldist.live.change import is_change
from edldist.live.generation import LiveGeneration
from edldist.live.handover import Progress, hand_over
from edldist.live.membership import RunOverError
from edldist.live.process_group import make_default_group
from edldist.live.roll import Meeting, Roll
from edldist.live.standing import Standing
from edldist.live.terms import LiveTerms
from edldist.live.undo import Undo
from edldist.ranks.placement import in_process_group, placement

__all__ = ["LiveGroup"]

logger = logging.getLogger(__name__)

_OPERATION = timedelta(seconds=30)
"""Time-out of gloo's operations: what waits for a frozen rank holds its memory, and a thread, for so long."""
_MOST_MEETINGS = 5
"""So often in a row the same ranks meet without a step: it is no lost rank that ends their operations."""
_PREPARED = "edldist.student.loader"
"""What takes long for the first time comes before the others stop for a rank: this, a backward pass."""


class LiveGroup:
    """Iterate over the generations of this rank's group. Owned by the training thread; one in a process.

    A step is whole: a rank applies it once the gradients of all have come, and where some have and others
    have not, the weights of those that have are handed to the others. A batch whose step was not taken comes
    again, dealt to those that are left. The sequence of global batches depends on the seed alone.

    Not guaranteed: that random numbers of the model (dropout) are those of a run without a change.
    Operations are gloo's; gradients on an accelerator go over the host.

    Args:
        state: what the ranks have in common in memory, by name, as for a ``Checkpointer``: the model, the
            optimizer, a scheduler. Whoever joins gets it from another rank.

    Attributes:
        live: whether the group changes in process.
        progress: how far this rank has come.
        handed: by name, what a loader of the last generation leaves to the one of the next.

    Raises:
        ConfigError: an object without ``state_dict`` and ``load_state_dict``, a second group in one process,
            or what the supervisor has told this rank is damaged.
    """

    _exists = False

    def __init__(self, state: Mapping[str, Stateful]) -> None:
        wrong = [name for name, value in state.items() if not isinstance(value, Stateful)]
        if wrong:
            raise ConfigError(f"LiveGroup: {wrong} have no state_dict() and load_state_dict()")
        self._terms = terms = LiveTerms.read()
        if terms is not None and LiveGroup._exists:
            raise ConfigError("LiveGroup: this process has one already, and is one rank")
        self.state = dict(state)
        self.live = terms is not None
        self.progress = Progress(-1, {})
        self.handed: dict[str, Any] = {}
        self._over = False
        self._asked_at: float | None = None
        self._generation: LiveGeneration | None = None
        self._roll: Roll | None = None
        self._standing = Standing(lambda: "")
        self._undo = Undo(self.state if self.live else {})
        self._met: tuple[tuple[str, ...], int] = (), -1
        self._meetings = 0
        exit_hooks.install()
        importlib.import_module(_PREPARED)
        torch.zeros(1, requires_grad=True, device="cpu").sum().backward()  # type: ignore[no-untyped-call]
        if terms is not None:
            LiveGroup._exists = True
            group_change.answer_by(self._hear)
            stopping.agree_by(self._all_asked)
            atexit.register(self._leave)

    def __iter__(self) -> Iterator[LiveGeneration]:
        while not self._over:
            try:
                self._generation = self._form()
            except RegroupError as exc:
                logger.info("%s: meeting again", exc)
                self.dissolve(exc)
                continue
            except RunOverError as exc:
                logger.warning("%s", exc)
                self._end("left")
                return
            yield self._generation

    # --- for the generation -----------------------------------------------------------------------

    def lost(self) -> str:
        """Why the group can take no step any more; empty while it can."""
        return self._standing.lost()

    @property
    def waiting(self) -> int:
        """Ranks that want to join."""
        return 0 if self._roll is None else self._roll.membership.waiting

    def is_change(self, error: BaseException) -> bool:
        """Whether the group ended the block, and not the script."""
        return is_change(error, self._standing.ended)

    def note(self, progress: Progress) -> None:
        """So far this rank has come."""
        self.progress = progress
        self._undo.note()

    def asked_for_s(self) -> float:
        """How long ago this process was seen to be asked to stop."""
        now = time.monotonic()
        self._asked_at = self._asked_at or now
        return now - self._asked_at

    def dissolve(self, error: BaseException) -> None:
        """Let go of the process group, and of what the last step, not taken, has left in the models."""
        self._standing.end(str(error))
        if in_process_group():
            dist.destroy_process_group()
        self._undo.undo()

    def finish(self, error: BaseException | None) -> None:
        """The block of a generation ended for good: its work is done, or an error ends the script."""
        self._over = True
        self._end("left" if error is not None or stopping.asked() else "finished")

    # --- forming ------------------------------------------------------------------------------------

    def _form(self) -> LiveGeneration:
        if self._terms is None:
            if not in_process_group() and placement().world_size > 1:
                dist.init_process_group("gloo")
            return LiveGeneration(self, 0)
        if self._roll is None:
            self._roll = Roll(self._terms, self._heard)  # not before: the others stop for who reports
        meeting = self._roll.join()
        self._standing = Standing(self._roll.membership.lost)
        world_size = len(meeting.members)
        make_default_group(meeting.connect, meeting.rank, world_size, _OPERATION, self._standing)
        self._check_meetings(meeting)
        self.note(hand_over(self.state, self.progress))
        self._undo.begin()
        logger.info(
            "rank %d of %d in generation %d, at step %d",
            *(meeting.rank, world_size, meeting.number, self.progress.step),
        )
        return LiveGeneration(self, meeting.number)

    def _check_meetings(self, meeting: Meeting) -> None:
        met = meeting.members, self.progress.step
        self._meetings = self._meetings + 1 if met == self._met else 1
        self._met = met
        if self._meetings > _MOST_MEETINGS:
            raise EdlDistError(
                f"the same {len(meeting.members)} ranks met {_MOST_MEETINGS} times in a row and took no step "
                f"behind step {max(0, self.progress.step)}, though none of them was lost: an operation of "
                "theirs fails each time, as with tensors of unlike shapes. See the warnings above"
            )

    def _heard(self) -> None:
        """The reporting thread: whoever waits for an operation that nobody ends hears of a change here."""
        try:
            self._standing.lost()
        except Exception as exc:  # which is due in the training thread, when that asks
            self._standing.end(str(exc))

    # --- the end ------------------------------------------------------------------------------------

    def _all_asked(self) -> bool:
        generation = self._generation
        return generation is not None and generation.all_asked

    def _hear(self, change: group_change.GroupChanged) -> None:
        """A thread heard that the group has lost a rank; the training thread hears it from the roll."""
        logger.debug("heard that %s", change.reason)

    def _leave(self) -> None:
        self._end("left")

    def _end(self, state: str) -> None:
        roll, self._roll = self._roll, None
        if roll is None:
            return
        atexit.unregister(self._leave)
        roll.end(state)
