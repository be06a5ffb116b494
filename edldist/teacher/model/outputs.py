"""What is sent of what a model returns: which outputs, and whether they are labels at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from edldist.errors import ConfigError, ContractError

__all__ = ["LONE", "OutputChoice", "parse_outputs"]

LONE = "logits"
"""The name of a lone tensor."""


def parse_outputs(text: str) -> tuple[str, ...]:
    """``"logits"`` or ``"logits,features"``: names of outputs.

    Raises:
        ConfigError: an empty or repeated one.
    """
    names = tuple(part.strip() for part in text.split(","))
    if "" in names or len(set(names)) != len(names):
        raise ConfigError(f"outputs {text!r}: use different names of outputs, as in logits,features")
    return names


class OutputChoice:
    """Picks and checks the outputs of one model.

    Args:
        model: its reference, for messages.
        names: of the outputs that are sent; None: all of them.
    """

    def __init__(self, model: str, names: Sequence[str] | None = None) -> None:
        self._model = model
        self._names = tuple(names) if names is not None else None

    def __call__(self, returned: Any, samples: int) -> dict[str, Tensor]:
        """The labels in what the model returned.

        Args:
            returned: a tensor, or tensors by name: in a mapping, or, where names are chosen, as attributes.
            samples: that the model was given.

        Returns:
            Tensors by name, samples first; a lone one is named ``logits``.

        Raises:
            ContractError: it is something else; says what to do.
        """
        if isinstance(returned, Tensor):
            returned = {LONE: returned}
        chosen = self._all(returned) if self._names is None else self._picked(returned, self._names)
        for name, tensor in chosen.items():
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise ContractError(
                    f"model {self._model} returned {name!r}: {type(tensor).__name__}; outputs must be "
                    f"tensors under string names{self._hint(returned, samples)}"
                )
            if tensor.dim() == 0 or tensor.shape[0] != samples:
                raise ContractError(
                    f"output {name!r} of model {self._model} has shape {list(tensor.shape)} for {samples} "
                    f"samples; its first dimension must be the samples{self._hint(returned, samples)}"
                )
        return dict(chosen)

    def _all(self, returned: Any) -> Mapping[str, Any]:
        if not isinstance(returned, Mapping) or not returned:
            raise ContractError(
                f"model {self._model} returned {_kind(returned)}; "
                "it must return a tensor or a non-empty dict of named tensors"
            )
        return returned

    def _picked(self, returned: Any, names: Sequence[str]) -> dict[str, Any]:
        picked = {}
        for name in names:
            if isinstance(returned, Mapping):
                there = name in returned
                value = returned[name] if there else None
            else:
                there = hasattr(returned, name)
                value = getattr(returned, name, None)
            if not there:
                has = f": {', '.join(map(str, returned))}" if isinstance(returned, Mapping) else ""
                raise ContractError(
                    f"model {self._model} returned {_kind(returned)} without {name!r}{has}. Choose others "
                    "with outputs (--outputs), or have the model return it"
                )
            picked[name] = value
        return picked

    def _hint(self, returned: Any, samples: int) -> str:
        """How to send only what can be sent, where there is some of that."""
        if self._names is not None:
            return ""
        good = [
            name
            for name, value in returned.items()
            if isinstance(name, str)
            and isinstance(value, Tensor)
            and value.dim() > 0
            and value.shape[0] == samples
        ]
        if not good:
            return ""
        return (
            f". Say which to send: outputs: [{', '.join(good)}] of the teacher, or --outputs {','.join(good)}"
        )


def _kind(returned: Any) -> str:
    return f"a {type(returned).__name__}"
