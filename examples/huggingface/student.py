"""Train a small language model with Hugging Face's Trainer, on the text and a teacher's logits."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # not the script's folder: the project's

from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

from edldist.integrations.huggingface import Distillation, DistillMixin
from examples.huggingface.data import splits
from examples.huggingface.models import student


class DistillTrainer(DistillMixin, Trainer):
    pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()
    folder = Path(os.environ.get("EDLDIST_OUTPUT", "out/by-hand")) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    set_seed(0)
    train, test = splits()
    trainer = DistillTrainer(
        model=student(),
        args=TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=args.epochs,
            per_device_train_batch_size=16,
            gradient_accumulation_steps=2,
            learning_rate=5e-3,
            logging_steps=10,
            save_steps=20,
            save_total_limit=2,
            disable_tqdm=True,
            report_to=[],
        ),
        train_dataset=train,
        eval_dataset=test,
        distillation=Distillation(temperature=2.0, alpha=0.9),
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)))
    print(f"loss {trainer.evaluate()['eval_loss']:.3f} nats a byte")


if __name__ == "__main__":
    main()
