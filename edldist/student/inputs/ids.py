"""What the samples of a batch are called in their data set, for a store of labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from edldist.errors import ConfigError, InputError
from edldist.student.inputs.inputs import pick

__all__ = ["Named", "SampleIds"]

Part = str | int | Callable[[Any], Any]


class Named(NamedTuple):
    """The samples of a batch.

    Attributes:
        ids: of each.
        seeds: of the augmentation of each; None: they are shown as they are.
    """

    ids: list[int | str]
    seeds: list[int] | None


class SampleIds:
    """``ids=`` of a ``DistillLoader``: labels are kept by the ids of samples, not by digests of their inputs.

    For inputs that are large, so that to digest them all would take longer than to look at their ids. One
    sample of each batch is digested all the same, and compared with what its labels were made of.

    Args:
        ids: the entry of a batch that holds them, a key, an index, or a function of the batch: whole numbers
            (a tensor [B] or a list), or texts.
        seeds: the same, of the seeds of the samples' augmentations (``augmentation_seed``): a sample that is
            shown in several ways has labels of each. None: it is shown in one way.
        data: which data set they are ids of, in any words, the version of it too. Default: what the job's
            ``store`` section says.

    Raises:
        ConfigError: an argument cannot be.
    """

    def __init__(self, ids: Part, seeds: Part | None = None, data: str = "") -> None:
        for name, part in (("ids", ids), ("seeds", seeds)):
            fits = callable(part) or (isinstance(part, (str, int)) and not isinstance(part, bool))
            if not (fits or (part is None and name == "seeds")):
                raise ConfigError(f"{name}={part!r}: use a key, an index, or a function of the batch")
        if not isinstance(data, str) or len(data) > 1_000:
            raise ConfigError(f"data={data!r:.100}: use a text of up to 1000 characters")
        self._ids, self._seeds = ids, seeds
        self.data = data

    @classmethod
    def of(cls, ids: SampleIds | Part | None) -> SampleIds | None:
        """What a ``DistillLoader`` was given."""
        return ids if ids is None or isinstance(ids, SampleIds) else cls(ids)

    def __call__(self, batch: Any, samples: int) -> Named:
        """The ids of a batch of so many samples.

        Raises:
            InputError: there are none, or not as many.
        """
        ids = self._values(batch, self._ids, "ids", samples, (int, str))
        if self._seeds is None:
            return Named(ids, None)
        return Named(ids, self._values(batch, self._seeds, "seeds", samples, (int,)))

    @staticmethod
    def _values(batch: Any, part: Part, name: str, samples: int, types: tuple[type, ...]) -> list[Any]:
        found = part(batch) if callable(part) else pick(batch, part, name)
        if isinstance(found, Tensor):
            whole = not (found.is_floating_point() or found.is_complex() or found.dtype is torch.bool)
            if found.dim() != 1 or not whole:
                raise InputError(
                    f"{name} of the batch are {found.dtype}{[*found.shape]}: whole numbers [B] are needed"
                )
            found = found.tolist()
        if not isinstance(found, Sequence) or isinstance(found, (str, bytes)):
            raise InputError(f"{name} of the batch are a {type(found).__name__}: use a tensor or a list")
        for value in found:
            if not isinstance(value, types) or isinstance(value, bool):
                what = "a whole number or a text" if str in types else "a whole number"
                raise InputError(f"{name} of the batch hold {value!r:.100}: each is {what}")
        if len(found) != samples:
            raise InputError(f"there are {len(found)} {name} for a batch of {samples} samples: one of each")
        return list(found)
