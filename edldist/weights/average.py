"""The exponential moving average of a model's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edldist.errors import CheckpointError, ConfigError

__all__ = ["WeightAverage"]


class WeightAverage:
    """``average = d * average + (1 - d) * weights`` after each step, ``d = min(decay, 1 - 1 / (n + 1))``.

    n counts the updates before. So the first ones make the plain mean of what there was so far, rather than
    to hold on to weights that nobody has trained (Tarvainen and Valpola, "Mean teachers are better role
    models", NeurIPS 2017, section 3 and their code).

    Parameters and floating-point buffers are averaged, in float32 at least; other buffers are the model's.
    Goes into the state of a ``Checkpointer``. All ranks of a group that trains in step have the same one.

    Args:
        model: as it is now, the average of one.
        decay: d in the long run, from 0 to below 1.

    Raises:
        ConfigError: ``decay`` is out of range, or ``model`` is none.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        if not isinstance(model, nn.Module):
            raise ConfigError(f"WeightAverage of a {type(model).__name__}: give an nn.Module")
        if not isinstance(decay, (int, float)) or isinstance(decay, bool) or not 0 <= decay < 1:
            raise ConfigError(f"WeightAverage(decay={decay!r}): use a number from 0 to below 1")
        self._model = model
        self._decay = float(decay)
        self._updates = 0
        self._average = {
            name: value.detach().to(_wide(value.dtype), copy=True) for name, value in _weights(model).items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """The model has taken a step."""
        decay = min(self._decay, 1.0 - 1.0 / (self._updates + 1))
        self._updates += 1
        for name, value in _weights(self._model).items():
            average = self._average[name]
            if average.is_floating_point():
                average.lerp_(value.detach().to(average.dtype), 1.0 - decay)
            else:
                average.copy_(value)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The average under the names of the model's ``state_dict``, in its dtypes."""
        now = _weights(self._model)
        return {name: average.to(now[name].dtype, copy=True) for name, average in self._average.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self._updates, "average": dict(self._average)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a saved average.

        Raises:
            CheckpointError: it is of another model.
        """
        saved = state["average"]
        if saved.keys() != self._average.keys():
            other = min(saved.keys() ^ self._average.keys())
            raise CheckpointError(f"the saved average is of another model: one of both lacks {other}")
        for name, average in self._average.items():
            average.copy_(saved[name])
        self._updates = int(state["updates"])


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype.is_floating_point and dtype.itemsize < 4 else dtype
