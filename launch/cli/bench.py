"""``edldist bench``: become the benchmarks of this very installation."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from edldist.errors import ConfigError

__all__ = ["bench"]


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
def bench(args: tuple[str, ...]) -> int:
    """Measure every figure beside its limit."""
    from edldist_launch.process.importing import add_to_environment

    add_to_environment(os.environ, os.getcwd())
    _become(args)


def _become(args: Sequence[str]) -> NoReturn:
    """Replace this process by ``benchmarks ARGS``: signals and exit codes pass unchanged.

    The benchmarks measure the launcher too, so they stand above it and are never imported here.

    Raises:
        ConfigError: this installation came without them.
    """
    spec = importlib.util.find_spec("edldist_benchmarks.__main__")
    if spec is None or spec.origin is None:
        raise ConfigError("edldist_benchmarks is not installed: install edldist with it, or use a checkout")
    os.execv(sys.executable, [sys.executable, spec.origin, *args])
