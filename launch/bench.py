"""``edldist bench``: become the benchmarks of this very installation."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from edldist.errors import ConfigError

__all__ = ["run_bench"]


def run_bench(args: Sequence[str]) -> NoReturn:
    """Replace this process by ``benchmarks ARGS``: signals and exit codes pass unchanged.

    The benchmarks measure the launcher too, so they stand above it and are never imported here.

    Raises:
        ConfigError: this installation came without them.
    """
    program = Path(__file__).resolve().parents[1] / "benchmarks" / "__main__.py"
    if not program.is_file():
        raise ConfigError(f"no benchmarks at {program}: install edldist with them, or use a checkout")
    os.execv(sys.executable, [sys.executable, str(program), *args])
