"""Weights as they lie around: one file, shards with an index, or a folder of either; wrapped, prefixed, tied.

Which file a folder means, in this order: an index of shards (``model.safetensors.index.json``,
``pytorch_model.bin.index.json``), ``model.safetensors``, ``pytorch_model.bin``, or the only file of weights.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edldist.errors import ConfigError, ModelError

__all__ = ["Weights"]

_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WHOLE = ("model.safetensors", "pytorch_model.bin")
_KINDS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
_NAMED = 8  # keys in a message


class Weights:
    """Files that hold the weights of a model, found before anything is built.

    Args:
        path: a ``.safetensors`` file, one that ``torch.load(weights_only=True)`` reads, the index of
            shards of either kind, or a folder.

    Raises:
        ConfigError: it is none of these; says what was looked for.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        place = Path(path)
        if not place.exists():
            raise ConfigError(f"weights {path}: no such file or folder")
        file = _in_folder(place) if place.is_dir() else place
        self._files = _shards(file) if file.name.endswith(".index.json") else [file]

    def load_into(self, model: nn.Module, name: str) -> None:
        """Copy the weights into a model, shard by shard.

        A checkpoint that wraps them (``state_dict``, ``model``, ``module``) is unwrapped. A prefix that all
        keys have, and the model's have not (``module.`` of ``DistributedDataParallel``, ``_orig_mod.`` of
        ``torch.compile``), is left out. A key may be missing if its parameter is tied to one that is there.

        Args:
            name: of the model, for messages.

        Raises:
            ModelError: a file cannot be read, or holds other weights than the model has.
        """
        wanted = model.state_dict()
        seen: set[str] = set()
        unexpected: list[str] = []
        for file in self._files:
            state = _bare(file, _read(file), wanted, getattr(model, "base_model_prefix", ""))
            seen.update(state)
            try:
                unexpected += model.load_state_dict(state, strict=False).unexpected_keys
            except Exception as exc:
                raise ModelError(f"weights {file} do not fit model {name}: {exc}") from exc
        unexpected = list(_not_ignored(model, unexpected))
        missing = list(_untied(model.state_dict(), seen))
        if missing or unexpected:
            lacks = [f"they lack {_some(missing)}"] * bool(missing)
            has = [f"they have {_some(unexpected)}, which it has not"] * bool(unexpected)
            raise ModelError(f"weights {self._path} do not fit model {name}: {'; '.join(lacks + has)}")


def _in_folder(folder: Path) -> Path:
    for name in (*_INDICES, *_WHOLE):
        if (folder / name).is_file():
            return folder / name
    files = sorted(file for file in folder.iterdir() if file.suffix in _KINDS and file.is_file())
    if len(files) == 1:
        return files[0]
    found = f"{len(files)} files of weights ({_some([file.name for file in files])})" if files else "none"
    raise ConfigError(
        f"weights {folder}: a folder holds {', '.join((*_INDICES, *_WHOLE))} or one file with "
        f"{', '.join(_KINDS)}; this one has {found}. Name the file"
    )


def _shards(index: Path) -> list[Path]:
    """The files that an index names: all beside it."""
    try:
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        names = sorted(set(named))
    except Exception as exc:
        raise ConfigError(f"weights {index}: no index of shards: {type(exc).__name__}: {exc}") from exc
    strange = [name for name in names if not isinstance(name, str) or Path(name).name != name]
    if strange or not names:
        raise ConfigError(f"weights {index}: it names {_some(strange) or 'no files'}, not files beside it")
    files = [index.parent / name for name in names]
    if missing := [file.name for file in files if not file.is_file()]:
        raise ConfigError(
            f"weights {index}: {len(missing)} of its {len(files)} shards are not there: {_some(missing)}"
        )
    return files


def _read(file: Path) -> Any:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as exc:
        raise ModelError(f"weights {file} cannot be read: {exc}") from exc


def _bare(file: Path, state: Any, wanted: Mapping[str, Any], base: str) -> dict[str, Any]:
    """The weights in a checkpoint, under the model's own names where these can be told."""
    while isinstance(state, Mapping):
        inner = next((state[key] for key in _WRAPPERS if isinstance(state.get(key), Mapping)), None)
        if inner is None:
            break
        state = inner
    if not isinstance(state, Mapping):
        raise ModelError(f"weights {file}: they are a {type(state).__name__}, not tensors by name")
    named = {str(key): value for key, value in state.items()}
    if base and not any(key in wanted for key in named):  # a bare trunk's, for a model with a head
        inside = {f"{base}.{key}": value for key, value in named.items()}
        named = inside if any(key in wanted for key in inside) else named
    while named and not any(key in wanted for key in named):
        if len({key.partition(".")[0] for key in named}) != 1 or not all("." in key for key in named):
            break
        named = {key.partition(".")[2]: value for key, value in named.items()}
    return named


def _untied(state: Mapping[str, Any], seen: set[str]) -> Iterator[str]:
    """Keys that are missing, and not the same memory as one that is there."""
    there = {_memory(state[key]) for key in seen if isinstance(state.get(key), Tensor)}
    for key, value in state.items():
        if key not in seen and (not isinstance(value, Tensor) or _memory(value) not in there):
            yield key


def _memory(value: Tensor) -> object:
    try:
        return (value.data_ptr(), value.shape, value.stride())
    except (RuntimeError, ValueError):  # it has no memory yet, or none that can be told
        return id(value)


def _not_ignored(model: nn.Module, keys: Iterable[str]) -> Iterator[str]:
    """Keys but those that the model itself says are of no use (transformers: masks in old files)."""
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    return (key for key in keys if not any(re.search(pattern, key) for pattern in ignored))


def _some(names: Iterable[str]) -> str:
    listed = list(map(str, names))
    more = len(listed) - _NAMED
    return ", ".join(listed[:_NAMED]) + (f" and {more} more" if more > 0 else "")
