"""Train a small language model with Hugging Face's Trainer, on the text and a teacher's logits."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # not the script's folder: the project's

import torch
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from edldist.integrations.huggingface import Distillation, DistillMixin
from examples.huggingface.data import splits
from examples.huggingface.models import student


class DistillTrainer(DistillMixin, Trainer):
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    by_hand = f"out/huggingface-{Path(__file__).stem}-{args.seed}"
    folder = Path(os.environ.get("EDLDIST_OUTPUT", by_hand)) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    set_seed(args.seed)
    _, train, test = splits()
    trainer = DistillTrainer(
        model=student(),
        args=TrainingArguments(
            output_dir=str(folder),
            seed=args.seed,
            num_train_epochs=args.epochs,
            per_device_train_batch_size=16,
            gradient_accumulation_steps=2,
            learning_rate=5e-3,
            logging_steps=20,
            save_steps=50,
            save_total_limit=2,
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),  # else each of several ranks takes itself for the only one
            report_to=[],
        ),
        train_dataset=train,
        eval_dataset=test,
        distillation=Distillation(temperature=1.0, alpha=0.9),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)))
    loss = trainer.evaluate()["eval_loss"]
    if trainer.is_world_process_zero():
        print(f"loss {loss:.3f} nats a byte")


if __name__ == "__main__":
    main()
