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
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from edldist.checkpoint.snapshot import Stateful
from edldist.errors import ConfigError, RegroupError
from edldist.lifecycle import exit_hooks, group_change, stopping
from edldist.live.collective import await_work
from edldist.live.generation import LiveGeneration
from edldist.live.handover import Progress, hand_over
from edldist.live.roll import Roll, RunOverError
from edldist.live.terms import LiveTerms
from edldist.ranks.placement import in_process_group, placement

__all__ = ["LiveGroup"]

logger = logging.getLogger(__name__)

_OPERATION = timedelta(seconds=30)
"""Time-out of gloo's operations: what waits for a frozen rank holds its memory, and a thread, for so long."""
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

    Raises:
        ConfigError: an object without ``state_dict`` and ``load_state_dict``, a second group in one process,
            or what the supervisor has told this rank is damaged.
    """

    _exists = False

    def __init__(self, state: Mapping[str, Stateful]) -> None:
        wrong = [name for name, value in state.items() if not isinstance(value, Stateful)]
        if wrong:
            raise ConfigError(f"LiveGroup: {wrong} have no state_dict() and load_state_dict()")
        terms = LiveTerms.read()
        if terms is not None and LiveGroup._exists:
            raise ConfigError("LiveGroup: this process has one already, and is one rank")
        self.state = dict(state)
        self.live = terms is not None
        self.progress = Progress(-1, {})
        self._over = False
        self._asked_at: float | None = None
        self._generation: LiveGeneration | None = None
        self._roll: Roll | None = None
        exit_hooks.install()
        importlib.import_module(_PREPARED)
        torch.zeros(1, requires_grad=True, device="cpu").sum().backward()  # type: ignore[no-untyped-call]
        if terms is not None:
            LiveGroup._exists = True
            group_change.answer_by(self._hear)
            stopping.agree_by(self._all_asked)
            self._roll = Roll(terms)
            atexit.register(self._leave)

    def __iter__(self) -> Iterator[LiveGeneration]:
        while not self._over:
            try:
                self._generation = self._form()
            except RegroupError as exc:
                logger.info("%s: meeting again", exc)
                self.dissolve()
                continue
            except RunOverError as exc:
                logger.warning("%s", exc)
                self._end("left")
                return
            yield self._generation

    # --- for the generation -----------------------------------------------------------------------

    def wait(self, work: Any) -> None:
        """Wait for an operation of the group.

        Raises:
            RegroupError: the group has changed.
        """
        await_work(work, self.changed)

    def changed(self) -> str:
        """Why the group is not what it was; empty while it is."""
        return "" if self._roll is None else self._roll.changed()

    def note(self, step: int, positions: Mapping[str, Any]) -> None:
        """So far this rank has come."""
        self.progress = Progress(step, positions)

    def asked_for_s(self) -> float:
        """How long ago this process was seen to be asked to stop."""
        now = time.monotonic()
        self._asked_at = self._asked_at or now
        return now - self._asked_at

    def dissolve(self) -> None:
        """Let go of the process group, in the background: what waits for a frozen rank holds it."""
        if not in_process_group():
            return
        held = [dist.distributed_c10d._get_default_group()]
        dist.destroy_process_group()
        threading.Thread(target=held.clear, name="edldist-old-group", daemon=True).start()

    def finish(self, error: BaseException | None) -> None:
        """The block of a generation ended for good: its work is done, or an error ends the script."""
        self._over = True
        self._end("left" if error is not None or stopping.asked() else "finished")

    # --- forming ------------------------------------------------------------------------------------

    def _form(self) -> LiveGeneration:
        if self._roll is None:
            if not in_process_group() and placement().world_size > 1:
                dist.init_process_group("gloo")
            return LiveGeneration(self, 0)
        meeting = self._roll.join()
        try:
            dist.init_process_group(
                "gloo",
                store=meeting.store,
                rank=meeting.rank,
                world_size=meeting.world_size,
                timeout=_OPERATION,
            )
        except RuntimeError as exc:
            raise RegroupError(f"generation {meeting.number} could not form: {exc}") from exc
        self.progress = hand_over(self.state, self.progress, self.wait)
        logger.info(
            "rank %d of %d in generation %d, at step %d",
            *(meeting.rank, meeting.world_size, meeting.number, self.progress.step),
        )
        return LiveGeneration(self, meeting.number)

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
