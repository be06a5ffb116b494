"""How many ranks ``gpu`` and ``auto`` stand for on this machine."""

from __future__ import annotations

import subprocess
import sys

from edldist.cpus import usable_cpus
from edldist.errors import ConfigError

__all__ = ["rank_count"]

_COUNT = "import torch; print(torch.accelerator.device_count() if torch.accelerator.is_available() else 0)"
_COUNT_S = 120.0


def rank_count(asked: int | str, key: str) -> int:
    """The number of ranks that were asked for: a number, ``gpu`` or ``auto``.

    Args:
        asked: ``gpu`` stands for the accelerators of this machine, ``auto`` for the same, or for the cores
            that this process may use where there are none (as with torchrun).
        key: where it was asked, for an error.

    Raises:
        ConfigError: there are no accelerators, or they cannot be counted.
    """
    if isinstance(asked, int):
        return asked
    found = _accelerators(key, asked)
    if found == 0 and asked == "gpu":
        raise ConfigError(
            f"{key}: gpu, but torch finds no accelerator on this machine: write a number, or auto"
        )
    return found or usable_cpus()


def _accelerators(key: str, asked: str) -> int:
    """Counted by a process of its own: this one shall not carry torch, nor hold a device."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _COUNT], capture_output=True, text=True, check=True, timeout=_COUNT_S
        )
        return int(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as exc:
        raise ConfigError(
            f"{key}: {asked}, but the accelerators cannot be counted ({exc}): write a number"
        ) from exc
