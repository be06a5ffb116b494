"""Distillation in a Hugging Face ``Trainer``, or in any class derived from it, such as TRL's ``SFTTrainer``.

::

    class DistillTrainer(DistillMixin, Trainer):
        pass

    trainer = DistillTrainer(model=student, args=..., train_dataset=..., distillation=Distillation(alpha=0.5))
    trainer.train(resume_from_checkpoint=last_checkpoint)
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

import edldist
from edldist.checkpoint.rank_state import RankState, rank_file, read_rank_state, write_rank_state
from edldist.errors import CheckpointError, ConfigError, InputError
from edldist.integrations.extras import missing
from edldist.integrations.trainer_data import SOFT, TrainerData
from edldist.ranks.placement import placement
from edldist.student.inputs.inputs import InputsByTeacher

try:
    from transformers import Trainer, TrainerCallback
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
except ImportError as exc:
    raise missing(__name__, "huggingface", exc) from exc

__all__ = ["DistillCallback", "DistillMixin", "Distillation"]

_IGNORED = -100
_FOLDER = "edldist"  # in a checkpoint of the Trainer's


@dataclass(frozen=True)
class Distillation:
    """What a student learns from its teacher, and how.

    Attributes:
        teacher: name of the teacher group.
        inputs: what the teacher sees of a batch (see ``DistillLoader``). None: every tensor but ``labels``,
            by its name.
        teacher_only: keys of the batch that the student's model does not take.
        output: which of the teacher's outputs are its logits, of the shape of the student's.
        temperature, alpha: see ``edldist.losses.kd``.
        shift: whether logits at a position are about the label of the next one. None: if the student is one
            of the library's causal language models.
        options: further arguments of the ``DistillLoader``, as ``{"coordinator": "tcp://..."}``.
    """

    teacher: str = "teacher"
    inputs: InputsByTeacher = None
    teacher_only: tuple[str, ...] = ()
    output: str = "logits"
    temperature: float = 4.0
    alpha: float = 0.9
    shift: bool | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


class DistillMixin:
    """Put in front of a Trainer's class, it trains on the teacher's labels as well.

    The loss is ``edldist.losses.kd`` over all positions whose label is not -100, both terms, averaged as the
    Trainer averages its own loss: over the tokens of all ranks and of all accumulated batches. A
    ``compute_loss_func`` that the Trainer is given takes the place of the cross-entropy. A Trainer with a
    ``compute_loss`` of its own has to call ``self.compute_loss_func``, as the library's does. Evaluation, and
    whatever else computes a loss without labels of a teacher, is the Trainer's own.

    A data set with a length, in random order, is dealt to the ranks by an ``ElasticSampler``: every sample
    once an epoch. Any other order, a sampler or a data loader of the Trainer's own, and a stream stay as they
    are, prepared by Accelerate.

    Checkpoints hold the position, in a folder ``edldist`` of each; a resumed epoch goes on there, and nothing
    is skipped by reading it. On SIGTERM the Trainer saves after the step and ends.

    Args:
        distillation: what to learn from the teacher.

    Raises:
        ConfigError: settings of the Trainer that do not go with it.
    """

    def __init__(self, *args: Any, distillation: Distillation | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        trainer: Any = self
        if trainer.args.label_smoothing_factor:
            raise ConfigError(
                f"label_smoothing_factor={trainer.args.label_smoothing_factor}: the teacher's labels are "
                "smooth by themselves; set it to 0, or smooth in a compute_loss_func"
            )
        objective = getattr(trainer.args, "loss_type", "nll")
        if objective != "nll":
            raise ConfigError(
                f"loss_type={objective!r}: this Trainer has an objective of its own, which the teacher's "
                "labels would replace. Use loss_type='nll' where there is one, or distil in a loop with a "
                "DistillLoader, where both can be added"
            )
        self.distillation = distillation or Distillation()
        self._own_loss: Callable[..., Tensor] | None = trainer.compute_loss_func
        self._soft: Mapping[str, Any] | None = None
        self._used = False  # whether a loss was computed with them
        self._data: TrainerData | None = None
        # With one, the Trainer counts tokens over ranks and batches, and leaves it to us to divide by them.
        trainer.compute_loss_func = self._loss
        trainer.add_callback(DistillCallback())

    # --- data -------------------------------------------------------------------------------------------

    def get_train_dataloader(self) -> DataLoader[Any]:
        stock: Any = super()
        trainer: Any = self
        if max(trainer.get_tp_size(), trainer.get_cp_size(), trainer.get_sp_size()) > 1:
            raise ConfigError(
                "ranks that share a batch (tensor, context, sequence parallel) cannot be distilled yet"
            )
        ranks, known = placement().world_size, trainer.args.world_size
        if ranks > 1 and known != ranks:
            raise ConfigError(
                f"{ranks} ranks were started, and this Trainer trains on {known}, so each would train a "
                "model of its own. On ranks without a GPU pass TrainingArguments(use_cpu=True)"
            )
        source = stock.get_train_dataloader()
        args, epochs = trainer.args, None
        samples = _length(source.dataset)
        if (
            samples
            and args.train_sampling_strategy == "random"
            and not isinstance(source.dataset, IterableDataset)
            and not self._has_own("get_train_dataloader", "_get_train_sampler")
        ):
            sampler = edldist.ElasticSampler(
                samples,
                trainer._train_batch_size * args.world_size,
                seed=args.seed if args.data_seed is None else args.data_seed,
                drop_last=args.dataloader_drop_last,
            )
            source = _dealt_by(sampler, source)
            length: int | None = sampler.batches_per_epoch
            if args.max_steps <= 0:
                epochs = math.ceil(args.num_train_epochs)
        else:
            length = _length(source)
        self._close()
        loader = edldist.DistillLoader(
            source,
            _all_but_labels if self.distillation.inputs is None else self.distillation.inputs,
            self.distillation.teacher,
            **{"epochs": epochs, **self.distillation.options},
        )
        self._data = TrainerData(loader, length, samples, self.distillation.teacher_only)
        return self._data

    def _has_own(self, *methods: str) -> bool:
        """Whether a class between this mixin and the library's Trainer has any of these methods."""
        return any(name in vars(kind) for kind in self._behind if kind is not Trainer for name in methods)

    @property
    def _behind(self) -> list[type]:
        """The Trainer's class that this mixin stands in front of, and those that it is derived from."""
        order = type(self).__mro__
        return [kind for kind in order[order.index(DistillMixin) + 1 :] if issubclass(kind, Trainer)]

    def train(self, *args: Any, **kwargs: Any) -> Any:
        stock: Any = super()
        try:
            return stock.train(*args, **kwargs)
        finally:
            self._close()

    def _close(self) -> None:
        if self._data is not None:
            self._data.loader.close()
            self._data = None

    # --- loss -------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        stock: Any = super()
        soft = inputs.pop(SOFT, None)
        if soft is None:
            with self._without_teacher():
                return stock.compute_loss(
                    model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
                )
        if "labels" not in inputs:
            if self._has_own("compute_loss"):
                raise ConfigError(
                    f"the batches have no 'labels', and {self._kind} computes a loss of its own, which the "
                    "teacher's labels would replace: distil in a loop with a DistillLoader instead, where "
                    "both can be added"
                )
            outputs = model(**inputs)
            loss = self._without_labels(outputs, soft, inputs.get("attention_mask"))
            return (loss, outputs) if return_outputs else loss
        self._soft, self._used = soft, False
        try:
            loss = stock.compute_loss(
                model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
        finally:
            self._soft = None
        if not self._used:
            raise ConfigError(
                f"{self._kind}.compute_loss did not call self.compute_loss_func, so nothing of the teacher's "
                "labels was in its loss: let it return self.compute_loss_func(outputs, labels, "
                "num_items_in_batch=num_items_in_batch), and pass a loss of your own as compute_loss_func"
            )
        return loss

    @property
    def _kind(self) -> str:
        """The class whose ``compute_loss`` the Trainer has."""
        return next(kind.__name__ for kind in self._behind if "compute_loss" in vars(kind))

    def _loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        """Of a batch with true labels, divided by what the Trainer counts."""
        assert self._soft is not None
        self._used = True
        student, teacher = self._logits(outputs, self._soft)
        target = labels
        if self._shifts:
            student, teacher, target = student[:, :-1], teacher[:, :-1], labels[:, 1:]
        mask = target != _IGNORED
        alpha = self.distillation.alpha if self._own_loss is None else 1.0
        loss = edldist.losses.kd(
            *(student, teacher, target),
            temperature=self.distillation.temperature,
            alpha=alpha,
            mask=mask,
            reduction="sum",
        )
        if num_items_in_batch is not None:
            loss = loss / num_items_in_batch.clamp(min=1)
        else:
            loss = self._share_of_window(loss / mask.sum().clamp(min=1), self._soft)
        if self._own_loss is None:
            return loss
        hard: Tensor = self._own_loss(outputs, labels, num_items_in_batch=num_items_in_batch)
        return self.distillation.alpha * loss + (1.0 - self.distillation.alpha) * hard

    @property
    def _shifts(self) -> bool:
        """Whether logits at a position are about the label of the next one, as a Trainer finds out."""
        if self.distillation.shift is not None:
            return self.distillation.shift
        trainer: Any = self
        model = trainer.accelerator.unwrap_model(trainer.model)
        if hasattr(model, "get_base_model"):  # of an adapter
            model = model.get_base_model()
        names = set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())
        return any(kind.__name__ in names for kind in type(model).__mro__)

    def _without_labels(self, outputs: Any, soft: Mapping[str, Any], attention: Tensor | None) -> Tensor:
        """Of a batch that only the teacher labels: the mean over its positions."""
        if self.distillation.alpha != 1.0:
            raise ConfigError(
                f"alpha={self.distillation.alpha}: the batches have no labels for the cross-entropy; give "
                "them 'labels', or set alpha=1.0"
            )
        student, teacher = self._logits(outputs, soft)
        mask = attention.bool() if attention is not None and attention.shape == student.shape[:-1] else None
        loss = edldist.losses.kd(
            student, teacher, temperature=self.distillation.temperature, alpha=1.0, mask=mask
        )
        return self._share_of_window(loss, soft)

    def _logits(self, outputs: Any, soft: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        logits = getattr(outputs, "logits", None)
        if logits is None:
            raise ConfigError(
                f"the student's output ({type(outputs).__name__}) has no logits to be distilled"
            )
        labels, output = soft["labels"], self.distillation.output
        if output not in labels:
            raise ConfigError(f"output={output!r}: the teacher's outputs are {', '.join(labels)}")
        teacher = labels[output]
        if not isinstance(teacher, Tensor):
            raise ConfigError(
                f"output={output!r} comes as {type(teacher).__name__}, and a Trainer's loss needs logits: "
                "start the teacher with codec dense, dense:fp16 or int8, or distil in a loop with a "
                "DistillLoader instead, where edldist.losses takes such labels"
            )
        return logits, teacher

    def _share_of_window(self, mean: Tensor, soft: Mapping[str, Any]) -> Tensor:
        """The part of one batch in the mean over those that are accumulated."""
        trainer: Any = self
        share: Tensor = mean * soft["weight"] / trainer.current_gradient_accumulation_steps
        return share

    @contextlib.contextmanager
    def _without_teacher(self) -> Iterator[None]:
        trainer: Any = self
        trainer.compute_loss_func = self._own_loss
        try:
            yield
        finally:
            trainer.compute_loss_func = self._loss

    # --- checkpoints ------------------------------------------------------------------------------------

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        stock: Any = super()
        stock._save_optimizer_and_scheduler(output_dir)
        if self._data is None:
            return
        folder = Path(output_dir) / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        trainer: Any = self
        write_rank_state(
            folder, trainer.args.process_index, RankState.taken({"loader": [_Place(self._data.loader)]})
        )
        trainer.accelerator.wait_for_everyone()  # before rank 0 writes what makes it a checkpoint

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        stock: Any = super()
        stock._load_optimizer_and_scheduler(checkpoint)
        trainer: Any = self
        if checkpoint is None or self._data is None or trainer.args.ignore_data_skip:
            return
        folder = Path(checkpoint) / _FOLDER
        rank = next(
            (each for each in (trainer.args.process_index, 0) if (folder / rank_file(each)).exists()), None
        )
        if rank is None:
            raise CheckpointError(
                f"{checkpoint} does not say where the DistillLoader was: it was made without distillation. "
                "Begin anew, or pass ignore_data_skip=True to begin its epoch again"
            )
        (state,) = read_rank_state(folder, rank)["loader"]
        loader = self._data.loader
        loader.load_state_dict(state["position"])
        loader.load_rank_state_dict(state["own"] if rank == trainer.args.process_index else None)
        self._data.skip(self._skipped(state["batches"], checkpoint))

    def _skipped(self, consumed: int, checkpoint: str) -> int:
        """How many batches the Trainer is going to skip, if that is where the position is."""
        trainer: Any = self
        assert self._data is not None
        steps, window = trainer.state.global_step, trainer.args.gradient_accumulation_steps
        if (length := _length(self._data)) is not None:
            updates = -(-length // window)
            steps, consumed = steps % updates, consumed % length
        if steps * window != consumed:
            raise CheckpointError(
                f"{checkpoint} is at step {trainer.state.global_step}, where {steps * window} batches of an "
                f"epoch would be consumed, and the data loader had given {consumed}: batch size, "
                "accumulation steps or the number of ranks are others than they were. Use those, or "
                "ignore_data_skip=True to begin its epoch again"
            )
        return consumed


class DistillCallback(TrainerCallback):
    """Lets a job see its training, and a Trainer its job: ``edldist.report`` and ``edldist.should_stop``."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if edldist.should_stop():
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            figures = {name: value for name, value in (logs or {}).items() if isinstance(value, (int, float))}
            figures["epoch"] = int(state.epoch or 0)
            edldist.report(step=state.global_step, steps=state.max_steps, **figures)


class _Place:
    """What a checkpoint holds of a loader."""

    def __init__(self, loader: edldist.DistillLoader) -> None:
        self._loader = loader

    def rank_state_dict(self) -> dict[str, Any]:
        position = self._loader.state_dict()
        if sampler := position.get("sampler"):
            batches = -(-sampler["samples"] // sampler["global_batch_size"])
        else:
            batches = position["batches"]
        return {"position": position, "own": self._loader.rank_state_dict(), "batches": batches}

    def load_rank_state_dict(self, state: Any, /) -> None:
        raise NotImplementedError("a mixin reads it, which knows the Trainer's own position")


def _dealt_by(sampler: edldist.ElasticSampler, source: Any) -> DataLoader[Any]:
    """A data loader as it was made, but for which samples this rank gets."""
    same = (
        "collate_fn",
        "num_workers",
        "pin_memory",
        "persistent_workers",
        "worker_init_fn",
        "prefetch_factor",
    )
    kept = {name: getattr(source, name) for name in (*same, "multiprocessing_context", "in_order")}
    return DataLoader(source.dataset, batch_sampler=sampler, **kept)


def _all_but_labels(batch: Mapping[str, Any]) -> dict[str, Tensor]:
    seen = {name: value for name, value in batch.items() if isinstance(value, Tensor) and name != "labels"}
    if len({value.shape[:1] for value in seen.values()}) > 1:
        sizes = ", ".join(f"{name} {list(value.shape)}" for name, value in seen.items())
        raise InputError(
            f"the batch holds tensors of different numbers of samples ({sizes}): name those that the teacher "
            "takes, as in Distillation(inputs=('input_ids', 'position_ids'))"
        )
    return seen


def _length(thing: Any) -> int | None:
    try:
        return len(thing)
    except (TypeError, NotImplementedError):
        return None
