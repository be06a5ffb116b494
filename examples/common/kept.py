"""What was made once is kept, under a digest of all that made it: settings, and the text of the modules."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["fingerprint", "kept_weights", "sources_of", "write_json"]

_SOURCES = ("*.py", "*.yaml", "*.txt")


def fingerprint(settings: Mapping[str, Any], sources: Iterable[Path]) -> str:
    """A short hash of settings (whatever JSON can say) and of the names and texts of files."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in sorted(sources):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def sources_of(example: Path) -> list[Path]:
    """The files of an example's folder on which its results depend: all of its text but ``sweep.py``.

    A sweep says which settings are run, and those are in the digest by themselves.
    """
    found = {path for pattern in _SOURCES for path in example.glob(pattern)}
    return sorted(path for path in found if path.name != "sweep.py")


def kept_weights(
    path: Path, key: str, make: Callable[[], tuple[Mapping[str, Tensor], Mapping[str, float]]]
) -> dict[str, float]:
    """Have a safetensors file made, unless it was made under this key.

    Args:
        key: the ``fingerprint`` of what the weights depend on. It lies in the file itself.
        make: trains; gives tensors, and figures of theirs to be kept beside them, such as an accuracy.

    Returns:
        The figures, of now or of then.
    """
    try:
        with safe_open(path, framework="pt") as found:
            made = found.metadata() or {}
    except (FileNotFoundError, SafetensorError):
        made = {}
    if made.pop("key", None) == key:
        return {name: float(value) for name, value in made.items()}
    tensors, figures = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    said = {name: repr(float(value)) for name, value in figures.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, {"key": key} | said)
    os.replace(partial, path)
    return {name: float(value) for name, value in figures.items()}


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all: who is killed here leaves no half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def _partial(path: Path) -> Path:
    return path.with_suffix(f".{os.getpid()}.partial")
