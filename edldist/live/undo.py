"""What a step that was not taken leaves in the model, and has to leave again: its batch comes once more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edldist.checkpoint.snapshot import unwrapped

__all__ = ["Undo"]


class Undo:
    """Models as they were behind the last step, but for their weights. For the training thread.

    A forward pass changes running statistics (``BatchNorm``). Gradients that were added up over several
    batches belong to batches that come again. An evaluation that was cut off has left a model in its mode.

    Args:
        state: what a group has in common in memory.
    """

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = [unwrapped(value) for value in state.values()]
        modules = [value for value in self._state if isinstance(value, nn.Module)]
        self._modules = [part for module in modules for part in module.modules()]
        self._modes: list[tuple[nn.Module, bool]] = []
        self._buffers = [buffer for module in modules for buffer in _saved_buffers(module)]
        self._kept = [buffer.detach().clone() for buffer in self._buffers]

    def begin(self) -> None:
        """A generation begins: its models are trained, or not, as they are now."""
        self._modes = [(module, module.training) for module in self._modules]

    def note(self) -> None:
        """A step was taken: from here on it is undone."""
        if self._buffers:
            with torch.no_grad():
                torch._foreach_copy_(self._kept, self._buffers)

    def undo(self) -> None:
        """Forget what came behind the last step: the statistics are as they were, and gradients are gone.

        Whether a model is trained is as it was when the generation began.
        """
        if self._buffers:
            with torch.no_grad():
                torch._foreach_copy_(self._buffers, self._kept)
        for module, mode in self._modes:
            module.training = mode
        for value in self._state:
            for parameter in _parameters(value):
                parameter.grad = None


def _saved_buffers(module: nn.Module) -> Iterator[Tensor]:
    """Buffers that are part of the module's state; others are made of what the script knows anyway."""
    seen: set[int] = set()
    for part in module.modules():
        for name, buffer in part._buffers.items():
            if buffer is not None and name not in part._non_persistent_buffers_set and id(buffer) not in seen:
                seen.add(id(buffer))
                yield buffer


def _parameters(value: Any) -> list[Tensor]:
    if isinstance(value, nn.Module):
        return list(value.parameters())
    return [parameter for group in getattr(value, "param_groups", ()) for parameter in group["params"]]
