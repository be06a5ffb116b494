"""Distillation in Lightning's ``Trainer``: a loader that it can shard, count and resume, and a callback.

::

    loader = edldist.DistillLoader(data_loader, inputs="image", epochs=epochs)
    trainer = lightning.Trainer(max_epochs=epochs, callbacks=[DistillCallback(), ModelCheckpoint(...)])
    trainer.fit(module, FitLoader(loader), ckpt_path="last")

``training_step`` gets ``(batch, labels)``.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import edldist
from edldist.errors import ConfigError
from edldist.integrations.extras import missing
from edldist.ranks.placement import placement
from edldist.student.loader import DistillLoader

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint
except ImportError as exc:
    raise missing(__name__, "lightning", exc) from exc

__all__ = ["DistillCallback", "FitLoader"]

logger = logging.getLogger(__name__)


class FitLoader:
    """A ``DistillLoader`` as ``Trainer.fit`` takes its training data.

    Lightning asks once how many batches an epoch has, and stops there; it names the epoch that begins; and
    its checkpoints carry what a loader with ``state_dict`` says. A ``DistillLoader`` alone says how many
    batches are *left*, so that a run that was resumed in mid-epoch would end each epoch there.

    Args:
        loader: what it reads. Every rank makes its own, over a data loader that shards by itself: Lightning
            gives no sampler to what is inside.
        batches: of an epoch, where the data loader does not know how many it has.

    Raises:
        ConfigError: nobody knows the number of batches.
    """

    def __init__(self, loader: DistillLoader, batches: int | None = None) -> None:
        self._loader = loader
        try:
            self._batches = loader.batches_per_epoch if batches is None else batches
        except TypeError as exc:
            raise ConfigError(
                "FitLoader: the data loader has no length, and without one Lightning reads a batch ahead, "
                f"which a checkpoint would take for consumed: pass batches=, those of each epoch ({exc})"
            ) from exc

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever the position is."""
        return self._batches

    def __iter__(self) -> Iterator[Any]:
        return iter(self._loader)

    @property
    def loader(self) -> DistillLoader:
        return self._loader

    @property
    def sampler(self) -> DistillLoader:
        """Where Lightning looks for ``set_epoch``, and says which epoch begins."""
        return self._loader

    @property
    def loss_weight(self) -> float:
        """What to multiply the mean loss of the last batch by (see ``DistillLoader.loss_weight``)."""
        return self._loader.loss_weight

    def state_dict(self) -> dict[str, Any]:
        return self._loader.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._loader.load_state_dict(state)


class DistillCallback(Callback):
    """Reports what Lightning logs to the job, and leaves with a checkpoint when the job asks for it.

    Rank 0 reports ``step``, ``steps``, ``epoch``, ``epochs``, the ``loss`` and everything else in
    ``trainer.callback_metrics``, in training and after each validation.

    SIGTERM, to any rank, means: a checkpoint after this step, and out (``edldist.should_stop``). It is
    written beside those of the trainer's ``ModelCheckpoint``, as ``last.ckpt``, where
    ``fit(ckpt_path="last")`` finds it. While it trains, the callback has the signal to itself: Lightning's
    own handler talks to the other ranks from inside the handler, and saves nothing.

    Args:
        report_every_steps: optimizer steps from one report to the next.
    """

    _handler: ClassVar[Any] = None  # ours, of this process: Lightning takes it away after each fit

    def __init__(self, report_every_steps: int = 10) -> None:
        if report_every_steps < 1:
            raise ConfigError(f"report_every_steps={report_every_steps}: use 1 or more")
        self._every_steps = report_every_steps
        self._earlier: Any = signal.SIG_DFL
        self._step = 0
        self._steps: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._earlier = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if isinstance(trainer.train_dataloader, DistillLoader):
            raise ConfigError(
                "trainer.fit(...) got a DistillLoader: pass it as FitLoader(loader), or a run that resumes "
                "in mid-epoch ends its epochs early"
            )
        if (ranks := placement().world_size) != trainer.world_size:
            raise ConfigError(
                f"{ranks} rank(s) were started, and this Trainer trains on {trainer.world_size}, so each "
                "would train a model of its own: pass Trainer(devices=int(os.environ['LOCAL_WORLD_SIZE']), "
                "num_nodes=int(os.environ['GROUP_WORLD_SIZE']))"
            )
        self._take_sigterm()
        self._step = trainer.global_step
        steps = trainer.estimated_stepping_batches
        self._steps = {"steps": int(steps)} if steps not in (float("inf"), -1) else {}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self._step:
            return  # gradients are being accumulated, and would be lost with a checkpoint
        self._step = trainer.global_step
        if trainer.is_global_zero and self._step % self._every_steps == 0:
            loss = outputs.get("loss") if isinstance(outputs, Mapping) else None
            # Lightning divided it for the sum that it makes of a window.
            figures = {} if loss is None else {"loss": loss.item() * trainer.accumulate_grad_batches}
            self._report(trainer, figures)
        if edldist.should_stop():
            self._save(trainer)
            raise SystemExit(0)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            self._report(trainer, {})

    def _report(self, trainer: Trainer, figures: Mapping[str, float]) -> None:
        metrics = {
            name: value.item() for name, value in trainer.callback_metrics.items() if value.numel() == 1
        }
        place = {"step": trainer.global_step, "epoch": trainer.current_epoch, **self._steps}
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            place["epochs"] = trainer.max_epochs
        edldist.report(**{**metrics, **figures, **place})

    def _take_sigterm(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        if DistillCallback._handler is None:
            signal.signal(signal.SIGTERM, self._earlier)
            edldist.should_stop()
            DistillCallback._handler = signal.getsignal(signal.SIGTERM)
        else:
            signal.signal(signal.SIGTERM, DistillCallback._handler)

    def _save(self, trainer: Trainer) -> None:
        saving = trainer.checkpoint_callback
        if not isinstance(saving, ModelCheckpoint) or saving.dirpath is None:
            logger.warning(
                "asked to stop: leaving without a checkpoint, as the trainer has no ModelCheckpoint"
            )
            return
        name = f"{saving.CHECKPOINT_NAME_LAST}{saving.FILE_EXTENSION}"
        trainer.save_checkpoint(os.path.join(saving.dirpath, name), saving.save_weights_only)
