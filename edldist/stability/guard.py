"""``SpikeGuard``: a loop that goes back behind a loss spike, and on without the batch that made it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from torch import Tensor

from edldist.checkpoint.checkpointer import Checkpointer
from edldist.checkpoint.snapshot import Stateful
from edldist.errors import CheckpointError, ConfigError, InputError, LossSpikeError
from edldist.observe import reporter
from edldist.ranks.agreement import Ranks
from edldist.stability.attempts import Attempts, Start
from edldist.stability.recent import Recent

__all__ = ["SpikeGuard"]

logger = logging.getLogger(__name__)


class Loader(Protocol):
    """What the guard needs of a ``DistillLoader``."""

    @property
    def epoch(self) -> int: ...

    @property
    def start(self) -> Start: ...

    @property
    def loss_weight(self) -> float: ...

    def leave_out(self, start: Start, batches: int = 1) -> None: ...

    def __iter__(self) -> Iterator[Any]: ...


class SpikeGuard:
    """Watches a loop's loss; at a spike it goes back to a checkpoint, and leaves out the batch that made it.

    ::

        guard = edldist.SpikeGuard(loader, epochs=3)
        state = {"model": model, "optimizer": optimizer, "loader": loader, "guard": guard}
        step = checkpointer.restore(state)
        if step is None:  # there has to be something to go back to
            checkpointer.save(step := 0, state)
        for batch, labels in guard:
            loss = ...
            optimizer.zero_grad()
            (loss * loader.loss_weight).backward()
            if guard.spiked(step, loss):
                step = guard.roll_back(checkpointer, state)
                continue
            optimizer.step()
            step += 1
            ...

    A spike is a loss that is not finite, or far above the last ones (see ``Recent``). It is named in the log
    and by the events ``loss_spiked`` and ``rolled_back``, and counted in ``result.json``. Rolling back
    restores whatever is in ``state``, random numbers too, so the run goes on bit by bit as one that never had
    the batches that are left out. Their samples are counted as ``left_out`` instead of as taken: each sample
    of an epoch is one or the other. What is left out when it happens again, and how often it may, say
    ``Attempts``.

    On several ranks all of them call the same methods; they judge the same figures, and decide alike. Reading
    the loss waits for the device, and with several ranks for each other.

    Not for loops of the integrations. What is not in ``state`` is not put back. Where the batches that come
    back after a restore are others, because the data loader's order does not come from the seed, nothing is
    left out that should be. The evaluation of an epoch that ends with a batch that is left out has to be done
    behind the loop (``ends_epoch`` does not know of it).

    Args:
        loader: a ``DistillLoader``, which is in ``state``.
        epochs: how many epochs the script runs, from 0 on: iterating goes through all of those that are left,
            the loader's ``epoch`` says which one it is, and its ``ends_epoch`` where one ends.
        window: how many of the last good steps the bound is from, and how many good steps make it a new spike
            rather than the same one again.
        least: how many of them there have to be before anything but a figure that is not finite is a spike.
        tolerance: how far above their median a figure may be, in robust standard deviations.
        max_rollbacks: how many rollbacks in a row are tried.

    Attributes:
        spikes: how many were seen, through restarts.
        rollbacks: how many there were.

    Raises:
        ConfigError: a number is out of its range, or the loader is no ``DistillLoader``.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        epochs: int = 1,
        window: int = 100,
        least: int = 20,
        tolerance: float = 10.0,
        max_rollbacks: int = 5,
    ) -> None:
        for name, value, most in (
            *(("epochs", epochs, None), ("window", window, None), ("least", least, window)),
            ("max_rollbacks", max_rollbacks, 16),
        ):
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or value < 1 or (most is not None and value > most):
                bound = "of 1 or more" if most is None else f"from 1 to {most}"
                raise ConfigError(f"SpikeGuard({name}={value!r}): use a whole number {bound}")
        number = isinstance(tolerance, int | float) and not isinstance(tolerance, bool)
        if not number or not 0 < tolerance < math.inf:
            raise ConfigError(f"SpikeGuard(tolerance={tolerance!r}): use a number above 0")
        lacks = [name for name in ("epoch", "start", "loss_weight", "leave_out") if not hasattr(loader, name)]
        if lacks:
            raise ConfigError(
                f"SpikeGuard({type(loader).__name__}): it has no {', '.join(lacks)}: pass the DistillLoader "
                "that the loop is over"
            )
        given = getattr(loader, "epochs", None)
        if given is not None and epochs > given:
            raise ConfigError(
                f"SpikeGuard(epochs={epochs}): the loader has epochs={given}, and nothing behind them: give "
                "both the same"
            )
        self.spikes = self.rollbacks = 0
        self._loader = loader
        self._epochs = epochs
        self._window, self._least, self._tolerance = window, least, float(tolerance)
        self._most = max_rollbacks
        self._attempts = Attempts(max_rollbacks, calm=window)
        self._recent: dict[str, Recent] = {}
        self._spike: tuple[int, str] | None = None  # that nobody went back behind
        self._went_back = self._rolling_back = False
        self._ranks: Ranks | None = None

    def __iter__(self) -> Iterator[Any]:
        """The loader's batches and labels of all epochs that are left, from wherever it is then.

        Raises (in the loop):
            ConfigError: ``spiked`` said True of the last batch, and the loop did not roll back.
        """
        while self._loader.epoch < self._epochs:
            self._went_back = False
            pairs = iter(self._loader)
            while not self._went_back:
                held = [next(pairs, None)]
                if held[0] is None:
                    break
                yield held.pop()  # held by nobody here while the loop works on it
                if self._spike is not None:
                    raise ConfigError(
                        f"SpikeGuard: {self._spike[1]}: spiked() said True, and the loop went on. Where it "
                        "does, call step = guard.roll_back(checkpointer, state), and continue"
                    )

    def spiked(self, step: int, loss: Any, **others: Any) -> bool:
        """Judge the step that is about to be taken with the loop's batch; the same answer on all ranks.

        Args:
            step: how many are complete.
            loss: the mean of this rank's samples; the ranks' are averaged, by ``loss_weight``.
            others: more figures to watch, by name, as ``gradient=clip_grad_norm_(...)``: of each the highest
                of all ranks. The same ones in every step.

        Returns:
            Whether a figure is a spike. Then ``roll_back``, and do not take the step.

        Raises:
            InputError: a figure is no number, or the ranks have other ones.
        """
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise InputError(f"SpikeGuard.spiked(step={step!r}): use the number of complete steps, 0 or more")
        figures = self._agreed({"loss": loss, **others})
        for what, value in figures.items():
            if what not in self._recent:
                self._recent[what] = Recent(self._window, self._least, self._tolerance)
            recent = self._recent[what]
            if recent.is_spike(value):
                self._name(step, what, value, recent.bound)
                return True
        for what, value in figures.items():
            self._recent[what].add(value)
        self._attempts.good(step, self._loader.start)
        return False

    def roll_back(self, checkpointer: Checkpointer, state: Mapping[str, Stateful]) -> int:
        """Restore a checkpoint from before the spike, and leave out the batch that showed it from now on.

        Waits for a save under way first. To be followed by the loop's next turn (``continue``).

        Args:
            checkpointer: has saved a checkpoint at the start of training.
            state: what it saves, with the loader.

        Returns:
            The step of the checkpoint.

        Raises:
            LossSpikeError: there were ``max_rollbacks`` in a row, or no checkpoint is from before the spike.
            CheckpointError: as ``Checkpointer.restore``.
        """
        if self._spike is None:
            raise ConfigError("SpikeGuard.roll_back(): there was no spike: call it where spiked() said True")
        (step, name), self._spike = self._spike, None
        if self._attempts.exhausted:
            raise LossSpikeError(
                f"{name}, after {self._most} rollbacks in a row, each of which left out more batches around "
                "it: it is not a few bad batches. Look at the data from there on, lower the learning rate or "
                "clip updates (edldist.optim.Clippy), or let figures rise further: SpikeGuard(tolerance=...)"
            )
        retreat = self._attempts.spike(step, self._loader.start)
        self._rolling_back = True
        try:
            restored = checkpointer.restore(state, at_most=retreat.at_most)
        finally:
            self._rolling_back = False
        if restored is None:
            raise LossSpikeError(
                f"{name}, and there is no checkpoint of step {retreat.at_most} or before to go back to: save "
                "one before the first step (checkpointer.save(0, state)), more often, or keep more of them "
                "(Checkpointer(keep=...), checkpoint: {keep: ...} of the job file)"
            )
        for start, batches in retreat.left_out:
            self._loader.leave_out(start, batches)
        self._attempts.back_at(restored)
        self._went_back = True
        self.rollbacks += 1
        batches = sum(count for _, count in retreat.left_out)
        if self._leads:
            logger.warning(
                "%s: back at step %d, and on without %s around it (rollback %d of at most %d in a row)",
                *(name, restored, "1 batch" if batches == 1 else f"{batches} batches"),
                *(retreat.number, self._most),
            )
            reporter.event(
                "rolled_back", step=step, restored=restored, batches=batches, in_a_row=retreat.number
            )
        return restored

    def state_dict(self) -> dict[str, Any]:
        """What has to survive a restart: the last figures, and the counts. The same on all ranks."""
        recent = {what: recent.values for what, recent in self._recent.items()}
        return {"recent": recent, "spikes": self.spikes, "rollbacks": self.rollbacks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with saved figures; a rollback keeps the counts.

        Raises:
            CheckpointError: it is no guard's state.
        """
        try:
            recent = {
                str(what): Recent(self._window, self._least, self._tolerance, map(float, values))
                for what, values in state["recent"].items()
            }
            spikes, rollbacks = int(state["spikes"]), int(state["rollbacks"])
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            raise CheckpointError(f"this is no state of a SpikeGuard: {exc!r}") from exc
        self._recent = recent
        if not self._rolling_back:
            self.spikes, self.rollbacks = spikes, rollbacks

    @property
    def _leads(self) -> bool:
        return self._ranks is None or self._ranks.rank == 0

    def _agreed(self, given: Mapping[str, Any]) -> dict[str, float]:
        """Each figure as all ranks see it."""
        if self._ranks is None:
            self._ranks = Ranks()
        own = {what: _number(what, value) for what, value in given.items()}
        weight = self._loader.loss_weight
        own["loss"] = own["loss"] * weight if weight else 0.0  # what does not count may be anything
        every = self._ranks.gather(own)
        if any(each.keys() != own.keys() for each in every):
            names = "; ".join(f"rank {rank}: {', '.join(each)}" for rank, each in enumerate(every))
            raise InputError(
                f"SpikeGuard.spiked(): the ranks give different figures ({names}): give the same"
            )
        figures = {what: _highest([each[what] for each in every]) for what in own}
        figures["loss"] = sum(each["loss"] for each in every) / len(every)
        return figures

    def _name(self, step: int, what: str, value: float, bound: float) -> None:
        epoch, position = self._loader.start
        said = f"{what} {value:.6g} after step {step} (epoch {epoch}, behind sample {position})"
        beyond = f" is above {bound:.6g}" if math.isfinite(value) else " is not finite"
        self._spike = (step, said + beyond)
        self.spikes += 1
        if self._leads:
            reporter.event(
                "loss_spiked",
                step=step,
                what=what,
                value=f"{value:.6g}",
                bound=f"{bound:.6g}",
                epoch=epoch,
                position=position,
            )


def _number(what: str, value: Any) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError("it is text")
        return float(value.detach() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as exc:
        raise InputError(f"SpikeGuard.spiked({what}={type(value).__name__}): use one number: {exc}") from exc


def _highest(values: list[float]) -> float:
    """NaN if any of them is."""
    return math.nan if any(math.isnan(value) for value in values) else max(values)
