"""Train the small classifier of digits with Lightning, on the few labels that there are."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # not the script's folder: the project's

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader

from examples.few_labels.data import splits
from examples.few_labels.models import student


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = student()

    def training_step(self, batch: Any, _: int) -> Tensor:
        return cross_entropy(self.model(batch["pixels"]), batch["label"])

    def validation_step(self, batch: Any, _: int) -> None:
        right = self.model(batch["pixels"]).argmax(1) == batch["label"]
        self.log("accuracy", right.float().mean(), sync_dist=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    args = parser.parse_args()
    lightning.seed_everything(0)
    train, labelled, test = splits()
    loader = DataLoader(labelled, batch_size=64, shuffle=True)
    folder = Path(os.environ.get("EDLDIST_OUTPUT", f"out/lightning-{Path(__file__).stem}"))
    checkpoints = ModelCheckpoint(folder / "checkpoints", every_n_train_steps=10, save_last=True)
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),  # as torchrun, or a job, says
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),
        logger=False,
        callbacks=[checkpoints],
        enable_progress_bar=False,
    )
    trainer.fit(Classifier(), loader, DataLoader(test, batch_size=256), ckpt_path="last")
    print(f"accuracy {trainer.callback_metrics['accuracy']:.2%}")


if __name__ == "__main__":
    main()
