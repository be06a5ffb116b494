"""A teacher from ``module:factory``: import, build, load weights, run, check what comes out."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edldist.errors import ConfigError, ModelError

__all__ = ["Teacher", "pick_device", "refuse_nonfinite"]


def pick_device(device: str) -> torch.device:
    """``auto`` is the first accelerator, or the CPU.

    Raises:
        ConfigError: no such device here.
    """
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as exc:
        raise ConfigError(f"device {device!r} cannot be used here: {str(exc).splitlines()[0]}") from exc
    return chosen


class Teacher:
    """A loaded model. Owned by the worker's compute thread.

    An ``nn.Module`` runs in eval and inference mode on ``device``; any other callable gets its
    inputs on that device and is left to itself.

    Args:
        path: ``package.module:factory``; the factory takes nothing.
        device: where to run.
        weights: ``.safetensors``, or a file that ``torch.load(weights_only=True)`` reads.

    Raises:
        ModelError: any step failed; carries the model's own traceback.
        ConfigError: ``path`` is malformed, or ``weights`` is no such file.
    """

    def __init__(self, path: str, device: torch.device, weights: str | None = None) -> None:
        self.path = path
        self.device = device
        self._model = _build(path)
        if isinstance(self._model, nn.Module):
            if weights is not None:
                _load_weights(self._model, Path(weights), path)
            try:
                self._model = self._model.to(device).eval()
            except Exception as exc:
                raise ModelError(f"model {path} cannot be moved to {device}:\n{_own_traceback(exc)}") from exc
        elif weights is not None:
            raise ModelError(
                f"weights {weights}: {path} made a {type(self._model).__name__}, not an nn.Module"
            )

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Label one batch.

        Args:
            inputs: host tensors, samples first; digit names are positional arguments, in order.

        Returns:
            Outputs on the device, samples first; a lone tensor is named ``logits``.

        Raises:
            ModelError: the model raised, or its output is not what it must be.
        """
        samples = next(iter(inputs.values())).shape[0]
        placed = {name: tensor.to(self.device, non_blocking=True) for name, tensor in inputs.items()}
        positional = [placed.pop(name) for name in sorted((n for n in placed if n.isdecimal()), key=int)]
        try:
            outputs = self._model(*positional, **placed)
        except torch.OutOfMemoryError:
            raise
        except Exception as exc:
            raise ModelError(f"model {self.path} raised:\n{_own_traceback(exc)}") from exc
        return self._checked(outputs, samples)

    def _checked(self, outputs: Any, samples: int) -> dict[str, Tensor]:
        if isinstance(outputs, Tensor):
            outputs = {"logits": outputs}
        if not isinstance(outputs, Mapping) or not outputs:
            raise ModelError(
                f"model {self.path} returned a {type(outputs).__name__}; "
                "it must return a tensor or a non-empty dict of named tensors"
            )
        for name, tensor in outputs.items():
            if not isinstance(name, str) or not isinstance(tensor, Tensor):
                raise ModelError(
                    f"model {self.path} returned {name!r}: {type(tensor).__name__}; "
                    "outputs must be tensors under string names"
                )
            if tensor.dim() == 0 or tensor.shape[0] != samples:
                raise ModelError(
                    f"output {name!r} of model {self.path} has shape {list(tensor.shape)} "
                    f"for {samples} samples; its first dimension must be the samples"
                )
        return dict(outputs)


def refuse_nonfinite(outputs: Mapping[str, Tensor]) -> None:
    """Check that no floating-point label is NaN or infinite.

    Raises:
        ModelError: names the output and the first such sample.
    """
    for name, tensor in outputs.items():
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        finite = tensor.isfinite()
        if not bool(finite.all()):
            rows = (~finite.flatten(1).all(1)) if tensor.dim() > 1 else ~finite
            first = int(rows.nonzero()[0])
            raise ModelError(
                f"output {name!r} has non-finite values in {int(rows.sum())} of {tensor.shape[0]} samples "
                f"(the first is sample {first} of the task). If that is meant, allow it with "
                "allow_nonfinite: true (--allow-nonfinite)"
            )


def _build(path: str) -> Callable[..., Any]:
    module_name, _, factory_name = path.partition(":")
    if not module_name or not factory_name:
        raise ConfigError(f"model {path!r}: use package.module:factory")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (module_name == exc.name or module_name.startswith(f"{exc.name}.")):
            raise ModelError(
                f"model {path}: no module named {exc.name!r} in {', '.join(sys.path[:3])}, ...; "
                "run from the folder that contains it, or install it"
            ) from exc
        raise ModelError(f"model {path} cannot be imported:\n{_own_traceback(exc)}") from exc
    except Exception as exc:
        raise ModelError(f"model {path} cannot be imported:\n{_own_traceback(exc)}") from exc
    factory = module
    for part in factory_name.split("."):
        try:
            factory = getattr(factory, part)
        except AttributeError:
            raise ModelError(f"model {path}: {module_name} has no {factory_name!r}") from None
    if not callable(factory):
        raise ModelError(f"model {path}: {factory_name} is a {type(factory).__name__}, not a factory")
    try:
        model = factory()
    except Exception as exc:
        raise ModelError(f"model {path}: the factory raised:\n{_own_traceback(exc)}") from exc
    if not callable(model):
        raise ModelError(
            f"model {path}: the factory returned a {type(model).__name__}; "
            "it must return an nn.Module or another callable"
        )
    return model  # type: ignore[no-any-return]


def _load_weights(model: nn.Module, file: Path, path: str) -> None:
    if not file.is_file():
        raise ConfigError(f"weights {file}: no such file")
    state: Any
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except ImportError as exc:
        raise ConfigError(f"weights {file}: install edldist[safetensors] to read this file") from exc
    except Exception as exc:
        raise ModelError(f"weights {file} cannot be read: {exc}") from exc
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    try:
        model.load_state_dict(state)
    except Exception as exc:
        raise ModelError(f"weights {file} do not fit model {path}: {exc}") from exc


def _own_traceback(exc: BaseException) -> str:
    """The traceback from the model's code on, without this file's frames."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    frames = [f for f in traceback.extract_tb(trace) if not f.filename.startswith("<frozen importlib")]
    lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames)]
    return "".join(lines + traceback.format_exception_only(exc)).rstrip()
