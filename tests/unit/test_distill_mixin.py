"""What the mixin for Trainers refuses, and says (tests/integration/test_huggingface.py trains with it)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("transformers")

from edldist.errors import CheckpointError, ConfigError
from edldist.integrations import huggingface
from edldist.integrations.huggingface import Distillation, DistillCallback, DistillMixin
from edldist.integrations.trainer_data import SOFT
from edldist.labels.codec import parse_codec


class Model:
    """Logits [2, 3, 5] whatever it is asked."""

    def __call__(self, **inputs):
        return SimpleNamespace(logits=torch.zeros(2, 3, 5))


class Base:
    """As much of a Trainer as the mixin touches here."""

    compute_loss_func = None
    current_gradient_accumulation_steps = 2

    def __init__(self, smoothing: float = 0.0, window: int = 2) -> None:
        self.args = SimpleNamespace(label_smoothing_factor=smoothing, gradient_accumulation_steps=window)
        self.state = SimpleNamespace(global_step=5)
        self.callbacks = []

    def add_callback(self, callback) -> None:
        self.callbacks.append(callback)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        if self.compute_loss_func is None:
            return "the Trainer's own"
        return self.compute_loss_func(outputs, inputs["labels"], num_items_in_batch=num_items_in_batch)


class Made(DistillMixin, Base):
    pass


def soft(weight: float = 1.0):
    return {"labels": {"logits": torch.arange(30.0).reshape(2, 3, 5)}, "weight": weight}


def test_labels_that_are_smoothed_twice_are_refused():
    with pytest.raises(ConfigError, match=r"label_smoothing_factor=0.1"):
        Made(0.1)


def test_a_loss_without_a_teachers_labels_is_the_trainers_own():
    trainer = Made()
    assert trainer.compute_loss(Model(), {"labels": torch.zeros(2, 3)}) == "the Trainer's own"
    assert trainer.compute_loss_func == trainer._loss


@pytest.mark.parametrize(("started", "known", "refused"), [(2, 1, True), (2, 2, False), (1, 1, False)])
def test_ranks_that_would_each_train_a_model_of_their_own_are_refused(monkeypatch, started, known, refused):
    """Accelerate takes a rank without a GPU for the only one, unless it is told to use the CPU."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", str(started))
    trainer = Made()
    trainer.args.world_size = known
    for size in ("tp", "cp", "sp"):
        setattr(trainer, f"get_{size}_size", lambda: 1)
    said = "2 ranks were started, and this Trainer trains on 1, .*use_cpu=True" if refused else "no attribute"
    with pytest.raises(ConfigError if refused else AttributeError, match=said):
        trainer.get_train_dataloader()  # the base has none


def test_the_cross_entropy_needs_labels():
    with pytest.raises(ConfigError, match=r"alpha=0.9: the batches have no labels"):
        Made().compute_loss(Model(), {SOFT: soft()})


@pytest.mark.parametrize("kept", [3, 2])
def test_without_labels_the_loss_is_the_mean_over_attended_positions_in_the_window(kept: int):
    trainer = Made(distillation=Distillation(alpha=1.0, temperature=1.0))
    mask = torch.ones(2, 3).long()
    mask[1, kept:] = 0
    got = trainer.compute_loss(Model(), {SOFT: soft(weight=0.5), "attention_mask": mask})
    teacher = torch.arange(5.0).log_softmax(0)  # of every position
    each = (teacher.exp() * (teacher - torch.tensor(0.2).log())).sum()
    assert got.item() == pytest.approx(each.item() * 0.5 / 2, rel=1e-5)


def test_an_output_that_the_teacher_does_not_have_is_named():
    trainer = Made(distillation=Distillation(alpha=1.0, output="scores"))
    with pytest.raises(ConfigError, match=r"output='scores': the teacher's outputs are logits"):
        trainer.compute_loss(Model(), {SOFT: soft()})


def test_labels_that_are_no_logits_are_refused_with_what_to_do():
    trainer = Made(distillation=Distillation(alpha=1.0))
    codec = parse_codec("topk:2")
    labels = codec.decode(codec.encode({"logits": torch.zeros(2, 3, 5)}))
    with pytest.raises(ConfigError, match="'logits' comes as TopKLabels.*codec dense.*or distil in a loop"):
        trainer.compute_loss(Model(), {SOFT: {"labels": labels, "weight": 1.0}})


def test_a_loss_of_the_users_own_takes_the_place_of_the_cross_entropy():
    class Own(Base):
        compute_loss_func = staticmethod(lambda outputs, labels, num_items_in_batch: torch.tensor(10.0))

    class MadeOfIt(DistillMixin, Own):
        pass

    labels = torch.full((2, 3), -100)
    trainer = MadeOfIt(distillation=Distillation(alpha=0.5, shift=False))
    assert trainer.compute_loss(Model(), {SOFT: soft(), "labels": labels}).item() == 5.0


def test_a_position_that_is_not_where_the_trainer_is_is_refused():
    trainer = Made()
    trainer._data = range(8)  # batches an epoch: four steps
    assert trainer._skipped(2, "checkpoint-5") == 2
    with pytest.raises(CheckpointError, match=r"checkpoint-5 is at step 5, where 2 batches .* had given 4"):
        trainer._skipped(4, "checkpoint-5")


def test_a_stop_request_saves_and_ends(monkeypatch):
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    for asked in (False, True):
        monkeypatch.setattr(huggingface.edldist, "should_stop", lambda asked=asked: asked)
        DistillCallback().on_step_end(None, None, control)
        assert (control.should_save, control.should_training_stop) == (asked, asked)


def test_what_a_trainer_logs_is_reported_by_one_rank(monkeypatch):
    told = []
    monkeypatch.setattr(huggingface.edldist, "report", lambda **figures: told.append(figures))
    for zero in (True, False):
        state = SimpleNamespace(is_world_process_zero=zero, epoch=1.5, global_step=7, max_steps=9)
        DistillCallback().on_log(None, state, None, logs={"loss": 0.5, "epoch": 1.5, "note": "text"})
    assert told == [{"step": 7, "steps": 9, "loss": 0.5, "epoch": 1}]
