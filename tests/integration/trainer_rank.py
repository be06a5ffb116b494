"""One rank of a job with a Hugging Face Trainer: trains as its plans say, and prints what it saw.

Each plan: ``coordinator`` (None: the teacher labels in this process), ``output``, ``batch_size`` of a rank,
``dropout``, and where wanted ``kind`` ("sft": TRL's trainer, "unlabelled": no labels but the teacher's,
"sequential": the Trainer's own order), ``die_after`` (steps) and ``resume`` (from the last checkpoint).
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint

import edldist
from edldist.integrations.huggingface import Distillation, DistillMixin
from tests.models import Bigrams

SAMPLES, TOKENS, EPOCHS, WINDOW = 26, 64, 2, 2
TEMPERATURE, ALPHA = 2.0, 0.7


def sample(number: int) -> dict[str, list[int]]:
    """Begins with its own number, of which nothing is to be learnt."""
    generator = torch.Generator().manual_seed(number)
    rest = torch.randint(0, TOKENS, (2 + number % 5,), generator=generator).tolist()
    return {"input_ids": [number, *rest], "labels": [-100, *rest]}


class Texts(Dataset):
    def __init__(self, samples: int = SAMPLES) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, number: int) -> dict[str, list[int]]:
        return sample(number)


def padded(samples: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    longest = max(len(each["input_ids"]) for each in samples)

    def rows(name: str, filler: int) -> Tensor:
        return torch.tensor([each[name] + [filler] * (longest - len(each[name])) for each in samples])

    seen = [[1] * len(each["input_ids"]) + [0] * (longest - len(each["input_ids"])) for each in samples]
    return {
        "input_ids": rows("input_ids", 0),
        "labels": rows("labels", -100),
        "attention_mask": torch.tensor(seen),
    }


def unlabelled(samples: list[dict[str, list[int]]]) -> dict[str, Tensor]:
    batch = padded(samples)
    del batch["labels"]
    return batch


class Noting:
    """Notes which samples a rank trains on, and its losses; and dies when it is time."""

    die_after: int | None = None

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        if self.state.global_step == self.die_after:
            os._exit(9)
        self.seen["ids"].append(inputs["input_ids"][:, 0].tolist())
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.seen["losses"].append(loss.item())
        return loss


class Distilled(Noting, DistillMixin, Trainer):
    pass


class LabelledHere(Noting, Trainer):
    """The same loop without edldist: the teacher is asked in the loss, which is written out."""

    def get_train_dataloader(self) -> DataLoader:
        size = self.args.per_device_train_batch_size * self.args.world_size
        sampler = edldist.ElasticSampler(SAMPLES, size, seed=self.args.seed)

        class Data(DataLoader):
            def set_epoch(self, epoch: int) -> None:
                sampler.set_epoch(epoch)

        return Data(Texts(), batch_sampler=sampler, collate_fn=self.data_collator)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        student = model(**inputs).logits[:, :-1].double() / TEMPERATURE
        teacher = Bigrams()(inputs["input_ids"])[:, :-1] / TEMPERATURE
        counts = labels[:, 1:] != -100
        student, teacher, target = student[counts], teacher[counts], labels[:, 1:][counts]
        soft = (teacher.softmax(-1) * (teacher.log_softmax(-1) - student.log_softmax(-1))).sum()
        hard = torch.nn.functional.cross_entropy(student * TEMPERATURE, target, reduction="sum")
        loss = ALPHA * TEMPERATURE**2 * soft + (1 - ALPHA) * hard
        return loss / num_items_in_batch * self.args.world_size


def train(plan: dict[str, Any], world: int) -> dict[str, Any]:
    set_seed(11)
    rate = plan["dropout"]
    sizes = {"vocab_size": TOKENS, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    dropout = {"resid_pdrop": rate, "embd_pdrop": rate, "attn_pdrop": rate}
    config = GPT2Config(**sizes, **dropout, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config).double()
    kind = plan.get("kind")
    usual = {
        "output_dir": plan["output"],
        "per_device_train_batch_size": plan["batch_size"],
        "gradient_accumulation_steps": WINDOW,
        "num_train_epochs": EPOCHS,
        "learning_rate": 0.01,
        "save_steps": 3,
        "logging_steps": 100,
        "seed": 5,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "ddp_backend": "gloo" if world > 1 else None,
    }
    distillation = Distillation(
        temperature=TEMPERATURE,
        alpha=1.0 if kind == "unlabelled" else ALPHA,
        options={"coordinator": plan["coordinator"]},
    )
    collator = unlabelled if kind == "unlabelled" else padded
    if kind == "sft":
        trainer = sft_trainer(model, usual, distillation)
    else:
        args = TrainingArguments(
            **usual, train_sampling_strategy="sequential" if kind == "sequential" else "random"
        )
        given = {"model": model, "args": args, "train_dataset": Texts(), "data_collator": collator}
        if plan["coordinator"] is None:
            trainer = LabelledHere(**given)
        else:
            trainer = Distilled(**given, distillation=distillation)
    trainer.seen = {"ids": [], "losses": []}
    trainer.die_after = plan.get("die_after")
    trainer.train(resume_from_checkpoint=get_last_checkpoint(plan["output"]) if plan.get("resume") else None)
    seen: dict[str, Any] = trainer.seen
    seen["steps"] = trainer.state.global_step
    seen["weights"] = [value.double().sum().item() for value in model.state_dict().values()]
    if plan.get("evaluate"):
        plain = Trainer(model=model, args=trainer.args, data_collator=collator)
        seen["evaluation"] = [each.evaluate(Texts(7))["eval_loss"] for each in (trainer, plain)]
        trainer.data_collator = unlabelled
        seen["predictions"] = list(trainer.predict(Texts(7)).predictions.shape)
    return seen


def sft_trainer(model: Any, usual: dict[str, Any], distillation: Distillation) -> Any:
    import datasets
    from trl import SFTConfig, SFTTrainer

    class DistilledSft(Noting, DistillMixin, SFTTrainer):
        pass

    rows = datasets.Dataset.from_list([sample(number) for number in range(SAMPLES)])
    kept = {"dataset_kwargs": {"skip_prepare_dataset": True}, "bf16": False, "gradient_checkpointing": False}
    return DistilledSft(
        model=model,
        args=SFTConfig(**usual, **kept),
        train_dataset=rows,
        data_collator=padded,
        processing_class=words(),
        distillation=distillation,
    )


def words() -> Any:
    """A tokenizer, which TRL wants although the texts are tokens already."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    vocabulary = {str(number): number for number in range(TOKENS)}
    inner = Tokenizer(WordLevel(vocabulary, unk_token="0"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="0", eos_token="0", unk_token="0")


def main() -> None:
    job = json.loads(sys.argv[1])
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if world > 1:
        dist.init_process_group("gloo", init_method=job["meeting"], rank=rank, world_size=world)
    print(json.dumps({name: train(plan, world) for name, plan in job["plans"].items()}), flush=True)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
