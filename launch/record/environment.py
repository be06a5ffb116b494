"""With what versions, and on what machine, a run is watched: for who reads about it later."""

from __future__ import annotations

import os
import platform
from importlib import metadata

__all__ = ["environment"]

_PACKAGES = ("edldist", "torch", "numpy", "pyzmq", "transformers", "accelerate", "lightning")


def environment() -> dict[str, str | int]:
    """Versions of packages that are installed, of Python and the system, and the number of CPUs."""
    found: dict[str, str | int] = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found | {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "host": platform.node(),
        "cpus": os.cpu_count() or 0,
    }
