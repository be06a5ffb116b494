"""A loop of Lightning's, with labels of a job or of its own, that writes down what it trained on.

As a program it is one rank: its arguments are a folder and a `Setup` as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning
    from lightning.pytorch.callbacks import ModelCheckpoint

    from edldist.integrations.lightning import DistillCallback, FitLoader

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import edldist
from edldist.lifecycle.stopping import asked
from tests.models import identify

SAMPLES, BATCH, STEPS = 25, 4, 7  # the last batch of an epoch is one sample


@dataclasses.dataclass
class Setup:
    """One run."""

    coordinator: str = ""  # none: labels are computed in process
    epochs: int = 3
    every: int = 1  # steps from one checkpoint to the next
    accumulate: int = 1
    kill_at: int = 0  # the step after which rank 1 kills itself, once
    term_at: int = 0  # the step in which all ranks wait for SIGTERM, once


class Ids(Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"id": torch.tensor(index), "x": torch.tensor([1.0, index / SAMPLES], dtype=torch.float64)}


class InProcess:
    """The same batches with the same labels, computed where they are read."""

    def __init__(self) -> None:
        self.sampler = edldist.ElasticSampler(SAMPLES, BATCH, seed=5)
        self.loss_weight = 1.0

    def __len__(self) -> int:
        return self.sampler.batches_per_epoch

    def __iter__(self) -> Iterator[Any]:
        for batch in DataLoader(Ids(), batch_sampler=self.sampler):
            self.loss_weight = self.sampler.part(self.sampler.samples).weight
            yield batch, {"logits": identify()(batch["id"])}
            self.sampler.advance()


class Module(lightning.LightningModule):
    def __init__(self, setup: Setup, log: Path | None = None) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.setup_ = setup
        self.layer = torch.nn.Linear(2, 2).double()
        self.log_file = log
        self.trained: list[tuple[int, list[int]]] = []
        self.losses: list[float] = []

    def training_step(self, pair: Any, index: int) -> Tensor:
        batch, labels = pair
        weight = self.trainer.train_dataloader.loss_weight
        loss = weight * (self.layer(batch["x"]) - labels["logits"] / SAMPLES).square().mean()
        ids = batch["id"].tolist() if weight else []
        self.trained.append((self.current_epoch, ids))
        self.losses.append(loss.item())
        if self.log_file is not None:
            with self.log_file.open("a") as file:
                print(json.dumps([self.global_step, self.current_epoch, ids, loss.item()]), file=file)
        self.log("loss_seen", loss)
        if self.global_step + 1 == self.setup_.term_at and self._first("waits"):
            deadline = time.monotonic() + 90
            while not asked():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        if self.global_step == self.setup_.kill_at and self.global_rank == 1 and self._first("killed"):
            os.kill(os.getpid(), signal.SIGKILL)

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("validated", batch.sum())

    def _first(self, what: str) -> bool:
        """Whether this rank comes here for the first time, restarts included."""
        assert self.log_file is not None
        mark = self.log_file.with_name(f"{what}-{self.global_rank}")
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)]

    @property
    def weights(self) -> list[float]:
        return [value for parameter in self.parameters() for value in parameter.detach().flatten().tolist()]


def loader_of(setup: Setup, **options: Any) -> edldist.DistillLoader:
    sampler = edldist.ElasticSampler(SAMPLES, BATCH, seed=5)
    data = DataLoader(Ids(), batch_sampler=sampler)
    options = {"inputs": "id", "coordinator": setup.coordinator, "epochs": setup.epochs} | options
    return edldist.DistillLoader(data, **options)


def trainer_of(setup: Setup, folder: Path, *callbacks: Any, **options: Any) -> lightning.Trainer:
    saving = ModelCheckpoint(
        folder, "step-{step}", every_n_train_steps=setup.every, save_last=True, save_top_k=-1
    )
    quiet = ("logger", "enable_progress_bar", "enable_model_summary")
    return lightning.Trainer(
        max_epochs=setup.epochs,
        accelerator="cpu",
        accumulate_grad_batches=setup.accumulate,
        callbacks=[*callbacks, saving],
        default_root_dir=folder,
        **dict.fromkeys(quiet, False) | options,
    )


def main(folder: Path, setup: Setup) -> None:
    rank, world_size = os.environ["RANK"], int(os.environ["WORLD_SIZE"])
    module = Module(setup, folder / f"steps-{rank}.jsonl")
    loader = FitLoader(loader_of(setup))
    strategy = {"devices": world_size, "strategy": "ddp" if world_size > 1 else "auto"}
    trainer = trainer_of(setup, folder, DistillCallback(), **strategy)
    trainer.fit(module, loader, ckpt_path="last")
    (folder / f"weights-{rank}.json").write_text(json.dumps(module.weights))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Setup(**json.loads(sys.argv[2])))
