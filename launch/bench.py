"""``edldist bench``: become the benchmarks of this very installation."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from edldist.errors import ConfigError

__all__ = ["run_bench"]


def run_bench(args: Sequence[str]) -> NoReturn:
    """Replace this process by ``benchmarks ARGS``: signals and exit codes pass unchanged.

    The benchmarks measure the launcher too, so they stand above it and are never imported here.

    Raises:
        ConfigError: this installation came without them.
    """
    spec = importlib.util.find_spec("edldist_benchmarks.__main__")
    if spec is None or spec.origin is None:
        raise ConfigError("edldist_benchmarks is not installed: install edldist with it, or use a checkout")
    os.execv(sys.executable, [sys.executable, spec.origin, *args])
