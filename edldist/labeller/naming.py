"""What teachers see of a batch, and how its samples are called, as the section ``label`` says."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from edldist.config import LabelConfig
from edldist.config.label import INDEX
from edldist.labeller.data_set import Batch
from edldist.student.ids import SampleIds
from edldist.student.inputs import InputSelector, pick

__all__ = ["ids_of", "inputs_of"]


def inputs_of(settings: LabelConfig) -> Callable[[Batch], dict[str, Tensor]]:
    """Picks what the teachers see out of a batch.

    Raises:
        ConfigError: nobody can see these entries.
    """
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
