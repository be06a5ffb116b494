"""What teachers see of a batch, and how its samples are called, as the section ``label`` says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

from edldist.config import LabelConfig
from edldist.config.label import INDEX
from edldist.labeller.data_set import Batch
from edldist.store.sample_key import Keys
from edldist.student.batch.lookup import SampleKeys
from edldist.student.batch.teacher_inputs import TeacherInputs
from edldist.student.inputs.ids import SampleIds
from edldist.student.inputs.inputs import InputSelector, TeacherInputSelector, pick
from edldist.student.inputs.sequences import Flags, PackedSequences, Sequences

__all__ = ["BatchKeys", "batch_keys", "ids_of", "inputs_of"]

BatchKeys: TypeAlias = Callable[[Batch], Keys]
"""The keys of the samples of a batch that teachers see."""


class _ReadSequences(Sequences):
    """Sequences in what was read for a batch."""

    def __call__(
        self, batch: Any, pick: Callable[[Any, Any], Any], only: Flags | None = None
    ) -> tuple[PackedSequences, int]:
        return super().__call__(batch.content, pick, only)

    def count(self, batch: Any, pick: Callable[[Any, Any], Any]) -> int:
        return super().count(batch.content, pick)


def inputs_of(settings: LabelConfig) -> Callable[[Batch], dict[str, Tensor]] | Sequences:
    """Picks what the teachers see out of a batch, as ``inputs=`` of a ``DistillLoader``.

    Raises:
        ConfigError: nobody can see these entries.
    """
    if settings.sequences is not None and settings.inputs is not None:
        its = settings.sequences
        return _ReadSequences(settings.inputs, mask=its.mask, asked=its.asked, whole=its.whole)
    select = InputSelector(settings.inputs)
    return lambda batch: select(batch.content)[0]


def ids_of(settings: LabelConfig) -> SampleIds | None:
    """How the samples of a batch are called; None where their inputs are digested."""
    name = settings.ids
    if name is None:
        return None
    if name == INDEX:
        return SampleIds(lambda batch: batch.numbers)
    return SampleIds(lambda batch: pick(batch.content, name, "label.ids"))


def batch_keys(settings: LabelConfig, data: str) -> BatchKeys:
    """Makes the keys under which labels of a batch are kept, as a ``DistillLoader`` does.

    Args:
        data: which data set ids belong to.

    Raises:
        ConfigError: see ``inputs_of``.
    """
    teacher = "teacher"
    select = TeacherInputSelector(inputs_of(settings), [teacher])
    make = SampleKeys(ids_of(settings), data, False, None)

    def keys(batch: Batch) -> Keys:
        seen = select(batch)
        part = seen.apart.get(teacher, (seen.tensors, seen.samples))
        return make.of(batch, seen.samples, TeacherInputs(*part)).keys

    return keys
