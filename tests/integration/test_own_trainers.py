"""Trainers with something of their own behind the mixin: it is kept, or refused, never lost in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, SubsetRandomSampler, WeightedRandomSampler

from edldist.errors import ConfigError, InputError
from tests.harness import local_job

transformers = pytest.importorskip("transformers")

from transformers import Trainer, TrainingArguments  # noqa: E402
from transformers.modeling_outputs import SequenceClassifierOutput  # noqa: E402

from edldist.integrations.huggingface import Distillation, DistillMixin  # noqa: E402

pytestmark = pytest.mark.timeout(240)
SAMPLES = 40


class Net(nn.Module):
    """Notes the numbers of the samples that it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2).double()
        self.seen: list[list[int]] = []

    def forward(self, id: torch.Tensor, labels: torch.Tensor | None = None) -> SequenceClassifierOutput:
        self.seen.append(id.tolist())
        logits = self.layer(id.double().unsqueeze(1) / SAMPLES)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class OwnSampler(Trainer):
    def _get_train_sampler(self, *given: Any) -> WeightedRandomSampler:
        seeded = torch.Generator().manual_seed(1)
        return WeightedRandomSampler(torch.arange(SAMPLES).double(), 24, generator=seeded)


class OwnLoader(Trainer):
    def get_train_dataloader(self) -> DataLoader:
        sampler = SubsetRandomSampler(range(10), generator=torch.Generator().manual_seed(1))
        made = DataLoader(self.train_dataset, 5, sampler=sampler, collate_fn=self.data_collator)
        return self.accelerator.prepare(made)


class OwnLoss(Trainer):
    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels", None)
        outputs = model(**inputs)
        loss = outputs.logits.square().mean() if labels is None else outputs.logits.sum()
        return (loss, outputs) if return_outputs else loss


def samples(**more: Any) -> list[dict[str, Any]]:
    return [{"id": number, "labels": number % 2, **more} for number in range(SAMPLES)]


@pytest.fixture(scope="module")
def coordinator() -> Any:
    with local_job() as job:
        job.teacher(model="identify")
        yield job.address
        assert job.errors == []


def train(
    base: type[Trainer], folder: Path, data: list[dict[str, Any]], coordinator: str | None, **options: Any
) -> list[list[int]]:
    """What the student saw, batch by batch."""
    arguments = options.pop("arguments", {})
    args = TrainingArguments(
        str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=8,
        save_strategy="no",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **arguments,
    )
    given: dict[str, Any] = {"model": Net(), "args": args, "train_dataset": data}
    given["data_collator"] = options.pop("collator", transformers.default_data_collator)
    if coordinator is None:
        trainer = base(**given)
    else:
        made = type("Distilled", (DistillMixin, base), {})
        options.setdefault("inputs", "id")
        trainer = made(**given, distillation=Distillation(options={"coordinator": coordinator}, **options))
    trainer.train()
    return given["model"].seen


@pytest.mark.parametrize("base", [OwnSampler, OwnLoader])
def test_a_sampler_or_a_data_loader_of_ones_own_deals_the_samples(
    base: type[Trainer], coordinator: str, tmp_path: Path
) -> None:
    plain = train(base, tmp_path, samples(), None)
    assert train(base, tmp_path, samples(), coordinator) == plain
    assert sum(map(len, plain)) in (24, 10)


def test_the_librarys_own_order_is_every_sample_once(coordinator: str, tmp_path: Path) -> None:
    seen = train(Trainer, tmp_path, samples(), coordinator)
    assert sorted(number for batch in seen for number in batch) == list(range(SAMPLES))


def test_a_loss_of_ones_own_that_takes_no_labels_of_the_teacher_is_refused(
    coordinator: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"OwnLoss.compute_loss did not call self.compute_loss_func"):
        train(OwnLoss, tmp_path, samples(), coordinator)


def test_an_objective_without_labels_is_not_replaced(coordinator: str, tmp_path: Path) -> None:
    data = [{"id": number} for number in range(SAMPLES)]
    with pytest.raises(ConfigError, match="no 'labels', and OwnLoss computes a loss of its own"):
        train(OwnLoss, tmp_path, data, coordinator, alpha=1.0)
    assert len(train(Trainer, tmp_path, data, coordinator, alpha=1.0)) == 5


def test_an_objective_that_settings_name_is_refused_before_anything_is_read(
    coordinator: str, tmp_path: Path
) -> None:
    class Arguments(TrainingArguments):
        loss_type = "dft"

    args = Arguments(str(tmp_path), use_cpu=True, report_to=[])
    made = type("Distilled", (DistillMixin, Trainer), {})
    with pytest.raises(ConfigError, match="loss_type='dft': this Trainer has an objective of its own"):
        made(model=Net(), args=args, train_dataset=samples())


def test_what_only_the_teacher_takes_does_not_reach_the_student(coordinator: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "inputs": lambda batch: {"id": batch["other"]},
        "arguments": {"remove_unused_columns": False},
    }
    data = samples(other=3)
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        train(Trainer, tmp_path, data, coordinator, **options)
    assert len(train(Trainer, tmp_path, data, coordinator, teacher_only=("other",), **options)) == 5


def test_tensors_that_count_something_else_must_be_told_apart(coordinator: str, tmp_path: Path) -> None:
    def packed(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        return {**transformers.default_data_collator(rows), "lengths": torch.tensor([3, 5, 7])}

    arguments = {"remove_unused_columns": False}
    with pytest.raises(InputError, match=r"id \[8\], lengths \[3\]\): name those that the teacher takes"):
        train(Trainer, tmp_path, samples(), coordinator, inputs=None, collator=packed, arguments=arguments)
