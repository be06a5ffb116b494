"""A teacher from ``module:factory``: import, build, load weights, run, check what comes out."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edldist.errors import ConfigError, ContractError, ModelError
from edldist.factories.factory import make, own_traceback
from edldist.factories.signature import at_position, misfit, takes, takes_any_name
from edldist.labels.places import Where, in_samples
from edldist.reference import is_folder
from edldist.teacher.model.digest import weights_digest
from edldist.teacher.model.huggingface import HuggingFaceFolder
from edldist.teacher.model.outline import raises_without_values
from edldist.teacher.model.outputs import OutputChoice
from edldist.teacher.model.token_ids import (
    context_of,
    refuse_no_integers,
    refuse_outside,
    refuse_outside_any,
    vocabulary_of,
)
from edldist.teacher.model.weights import Weights
from edldist.vocabulary.sources import is_source, read_folder, tokens_of
from edldist.vocabulary.tokens import Tokens
from edldist.wire.texts import TextName, unpack_texts

__all__ = ["Teacher", "device_type", "is_out_of_memory", "pick_device", "refuse_nonfinite"]

_ALIGNED_BYTES = 64  # of what torch allocates on the host

# How allocators without an error class of their own put it: the host's, and libraries on a device.
_NO_MEMORY = (
    *("can't allocate memory", "DefaultCPUAllocator", "not enough memory", "out of memory"),
    *("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
)


def pick_device(device: str) -> torch.device:
    """``auto`` is the first accelerator, or the CPU; ``auto:K`` the K-th, counted round and round.

    Raises:
        ConfigError: no such device here.
    """
    kind, _, number = device.partition(":")
    if kind == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if accelerator is None or not number:
            return accelerator or torch.device("cpu")
        return torch.device(accelerator.type, int(number) % torch.accelerator.device_count())
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as exc:
        raise ConfigError(f"device {device!r} cannot be used here: {str(exc).splitlines()[0]}") from exc
    return chosen


def device_type(device: torch.device) -> str:
    """What a device is called among devices of its kind: such as ``NVIDIA H100 80GB HBM3``, or ``cpu``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


class Teacher:
    """A loaded model. Owned by the worker's compute thread.

    An ``nn.Module`` runs in eval and inference mode on ``device``; any other callable gets its
    inputs on that device and is left to itself.

    Args:
        path: ``package.module:factory``, or ``hf:FOLDER`` (``huggingface``).
        device: where to run. A model that was spread over devices (``device_map``) stays where it is.
        weights: to load into it, in any form that ``Weights`` knows.
        compiled: run through ``torch.compile``, the number of samples left open.
        autocast: ``bf16`` or ``fp16`` to run under autocast.
        channels_last: weights and 4-dimensional inputs in channels-last memory format.
        outputs: names of those that are sent; None: all.
        vocabulary: folder or file of its tokenizer, where that does not lie beside the model.
        kwargs: of the factory, or of ``from_pretrained``.

    Attributes:
        identity: what workers of one group call the model, wherever it lies on their hosts.
        tokenizer: digest of the tokenizer that lies beside it, or empty.
        tokens: the ids that it takes and gives probabilities to: of that tokenizer, or of its attribute
            ``vocabulary``; None where neither says.
        digest: of an ``nn.Module``'s weights (``weights_digest``); empty for another callable.

    Raises:
        ModelError: any step failed; carries the model's own traceback.
        ConfigError: ``path`` is malformed, ``weights`` is no such file, or the device cannot do
            ``autocast``.
    """

    def __init__(
        self,
        path: str,
        device: torch.device,
        weights: str | None = None,
        *,
        compiled: bool = False,
        autocast: str | None = None,
        channels_last: bool = False,
        outputs: Sequence[str] | None = None,
        vocabulary: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = self.identity = path
        self.tokenizer = ""
        self.tokens: Tokens | None = None
        self._outputs = OutputChoice(path, outputs)
        self.device = device
        self._autocast = None if autocast is None else _autocast_dtype(autocast, device)
        self._channels_last = channels_last
        self.digest = ""
        self._labelled = False
        self._vocabulary: int | None = None
        self._compiled: Callable[..., Any] | None = None
        files = Weights(weights) if weights is not None else None
        self._model = self._make(path, kwargs or {})
        if is_source(own := getattr(self._model, "vocabulary", None)):
            self.tokens = tokens_of(own)
        if vocabulary is not None:
            self.tokens = tokens_of(vocabulary)
        if not callable(self._model):
            raise ModelError(
                f"model {path}: the factory returned a {type(self._model).__name__}; "
                "it must return an nn.Module or another callable"
            )
        if isinstance(self._model, nn.Module):
            if files is not None:
                files.load_into(self._model, path)
            self.digest = weights_digest(self._model)
            try:
                if getattr(self._model, "hf_device_map", None) or "device_map" in (kwargs or {}):
                    self.device = next(self._model.parameters()).device
                else:
                    self._model = self._model.to(device)
                self._model = self._model.eval()
                if channels_last:
                    self._model = self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            except Exception as exc:
                raise ModelError(f"model {path} cannot be moved to {device}:\n{own_traceback(exc)}") from exc
            if compiled:
                self._compiled = torch.compile(self._model)
            self._vocabulary = vocabulary_of(self._model)
            return
        asked = {
            "weights": weights,
            "compile": compiled,
            "autocast": autocast,
            "channels_last": channels_last,
        }
        for option, value in asked.items():
            if value:
                raise ModelError(
                    f"{option} {value}: {path} made a {type(self._model).__name__}, not an nn.Module"
                )

    @property
    def state(self) -> dict[str, Tensor]:
        """The weights that may be replaced, by name.

        Raises:
            ModelError: it is no ``nn.Module``, and has none that can be.
        """
        if not isinstance(self._model, nn.Module):
            raise ModelError(
                f"model {self.path} is a {type(self._model).__name__}, not an nn.Module: nobody can load "
                "newer weights into it (--weights follow:)"
            )
        return {name: value for name, value in self._model.state_dict().items() if isinstance(value, Tensor)}

    @torch.no_grad()
    def replace(self, weights: Mapping[str, Tensor]) -> None:
        """Take other weights, of the names, shapes and dtypes of ``state``, while no pass is under way."""
        state = self.state
        for name, value in weights.items():
            state[name].copy_(value)
        if self.device.type != "cpu":
            torch.accelerator.synchronize(self.device)  # passes are launched on streams of their own
        assert isinstance(self._model, nn.Module)
        self.digest = weights_digest(self._model)

    @property
    def model(self) -> Callable[..., Any]:
        """What was loaded."""
        return self._model

    def _make(self, path: str, kwargs: Mapping[str, Any]) -> Callable[..., Any]:
        if not is_folder(path):
            made: Callable[..., Any] = make("model", path, kwargs)
            return made
        folder = HuggingFaceFolder.parse(path)
        self.identity, self.tokenizer = folder.identity, folder.tokenizer_digest()
        self.tokens = read_folder(folder.folder)
        return folder.load(kwargs)

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, Tensor], *, fixed: bool = False) -> dict[str, Tensor]:
        """Label one batch.

        Args:
            inputs: tensors on the host or on the device, samples first; digit names are positional
                arguments, in order. The model gets texts (``TextName``) as lists.
            fixed: the result must depend on nothing but the inputs. The compiled model, whose
                kernels depend on the sizes that this process met first, is not used then; nor is host memory
                as it came, whose alignment depends on the way: products differ in their last bits with it.

        Returns:
            Outputs on the device, samples first; a lone tensor is named ``logits``.

        Raises:
            ContractError: it does not take such inputs, or its output is not what it must be.
            ModelError: it raised.
            Exception: whatever ``is_out_of_memory`` recognizes.
        """
        samples = next(iter(inputs.values())).shape[0]
        placed = {name: self._placed(name, tensor, fixed) for name, tensor in inputs.items()}
        run = self._model
        if self._compiled is not None and not fixed:
            run = self._compiled
            _leave_samples_open(value for value in placed.values() if isinstance(value, Tensor))
        positional = [placed.pop(name) for name in sorted((n for n in placed if n.isdecimal()), key=int)]
        try:
            if self._autocast is None:
                outputs = run(*positional, **placed)
            else:
                with torch.autocast(self.device.type, dtype=self._autocast):
                    outputs = run(*positional, **placed)
        except Exception as exc:
            if is_out_of_memory(exc):
                raise
            if type(exc).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise ModelError(
                    f"model {self.path} cannot be compiled here; leave compile out (--no-compile), or:\n{exc}"
                ) from exc
            self._refuse_inputs(positional, placed, exc)
            raise ModelError(f"model {self.path} raised:\n{own_traceback(exc)}") from exc
        labels = self._outputs(outputs, samples)
        self._labelled = True
        return labels

    def takes(self, name: str) -> bool:
        """Whether the model names an argument so."""
        return takes(self._model, name)

    @functools.cached_property
    def context(self) -> int | None:
        """The most tokens of a sequence, where the model's config says so."""
        return context_of(self._model)

    def refuse_ids(self, inputs: Mapping[str, Tensor], where: Where) -> None:
        """Check token ids before the model sees them.

        Args:
            inputs: on the host, rows first.
            where: what a row of them is called.

        Raises:
            ContractError: one is none of the model's.
        """
        if self._vocabulary is not None:
            named = {
                at_position(self._model, int(name)) or name if name.isdecimal() else name: tensor
                for name, tensor in inputs.items()
            }
            refuse_outside(self.path, named, self._vocabulary, where)

    def explain(self, error: ModelError, inputs: Mapping[str, Tensor], where: Where) -> None:
        """Say it in other words, if what the model raised comes from ids that it does not have, or cannot be.

        Raises:
            ContractError: it does.
        """
        if isinstance(error.__cause__, IndexError):
            refuse_outside_any(self._model, self.path, inputs, where)
        refuse_no_integers(self.path, inputs, error.__cause__)

    def _placed(self, name: str, tensor: Tensor, fixed: bool) -> Tensor | list[str] | list[bytes]:
        if isinstance(name, TextName):
            return unpack_texts(name, tensor)
        placed = tensor.to(self.device, non_blocking=True)
        if self._channels_last and placed.dim() == 4:
            placed = placed.to(memory_format=torch.channels_last)
        return _aligned(placed) if fixed else placed

    def _refuse_inputs(self, positional: Sequence[Any], named: Mapping[str, Any], exc: Exception) -> None:
        """Say that the model takes other inputs, if that is what its error comes from."""
        why = misfit(self._model, positional, named) if isinstance(exc, TypeError) else None
        if isinstance(exc, KeyError) and takes_any_name(self._model):
            key = exc.args[0] if exc.args else None
            if isinstance(key, str) and key not in named:
                why = f"it has no {key!r}, for which the model looks"
        model_says = ""
        if why is None and not self._labelled and raises_without_values(self._model, positional, named, exc):
            first_line = str(exc).partition("\n")[0].rstrip(".")
            why = f"it refuses them whatever they hold, with {type(exc).__name__}: {first_line}"
            model_says = f".\n{own_traceback(exc)}"
        if why is not None:
            sent = [*(f"{len(positional)} by position",) * bool(positional), *map(repr, named)]
            raise ContractError(
                f"model {self.path} cannot be called with what the student sends ({', '.join(sent)}): {why}. "
                "Pick what the model takes, under its names, with inputs= of the student's DistillLoader or "
                f"LabelRequests (or the teacher's dataset_inputs){model_says}"
            ) from exc


def refuse_nonfinite(outputs: Mapping[str, Tensor], where: Where = in_samples) -> None:
    """Check that no floating-point label is NaN or infinite.

    Args:
        where: what a row is called.

    Raises:
        ModelError: names the output and the first such sample.
    """
    for name, tensor in outputs.items():
        if not tensor.is_floating_point() or tensor.numel() == 0:
            continue
        finite = (tensor.float() if tensor.itemsize == 1 else tensor).isfinite()
        if not bool(finite.all()):
            rows = (~finite.flatten(1).all(1)) if tensor.dim() > 1 else ~finite
            first = int(rows.nonzero()[0])
            raise ModelError(
                f"output {name!r} has non-finite values in {int(rows.sum())} of {tensor.shape[0]} rows "
                f"(the first is {where([first])}). If that is meant, allow it with "
                "allow_nonfinite: true (--allow-nonfinite)"
            )


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether fewer samples may do better: a device or the host has no memory for so many."""
    if isinstance(exc, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(exc, RuntimeError) and any(words in str(exc) for words in _NO_MEMORY)


def _autocast_dtype(name: str, device: torch.device) -> torch.dtype:
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)
    if dtype is None:
        raise ConfigError(f"autocast {name!r}: use bf16 or fp16")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns, and runs without it
            torch.autocast(device.type, dtype=dtype)
    except (RuntimeError, Warning) as exc:
        raise ConfigError(f"autocast {name} cannot be used on {device}: {str(exc).splitlines()[0]}") from exc
    return dtype


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor, in memory as torch makes it: a message's may begin anywhere."""
    return tensor.clone() if tensor.is_cpu and tensor.data_ptr() % _ALIGNED_BYTES else tensor


def _leave_samples_open(tensors: Iterable[Tensor]) -> None:
    """Let a compiled model take any number of samples, instead of compiling for each number anew."""
    from torch._dynamo import maybe_mark_dynamic

    for tensor in tensors:
        maybe_mark_dynamic(tensor, 0)
