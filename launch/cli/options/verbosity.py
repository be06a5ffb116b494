"""How much a command says, and in what form: options that each of them has."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from edldist_launch.cli.options.options import option

__all__ = ["chosen_level", "verbosity_options"]

_CHOSEN = "edldist.verbosity"


def _level(level: str) -> Callable[[click.Context, click.Parameter, bool], None]:
    def choose(context: click.Context, parameter: click.Parameter, given: bool) -> None:
        if not given:
            return
        before: tuple[click.Context, str] | None = context.meta.get(_CHOSEN)
        if before is not None and before[0] is context and before[1] != level:
            raise click.UsageError("--verbose says more and --quiet says less: give one of them.")
        context.meta[_CHOSEN] = (context, level)
        os.environ["EDLDIST_LOG_LEVEL"] = level

    return choose


def _as_json(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    """By the variable, where every process that this one starts finds it too."""
    if wanted:
        os.environ["EDLDIST_LOG_JSON"] = "1"


def chosen_level(context: click.Context, otherwise: str) -> str:
    """The level that -v or -q stands for; without either the other one."""
    chosen: tuple[click.Context, str] | None = context.meta.get(_CHOSEN)
    return otherwise if chosen is None else chosen[1]


_verbose = option(
    *("--verbose", "-v"),
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_level("debug"),
    help="Log every detail; as --log-level debug.",
)
_quiet = option(
    *("--quiet", "-q"),
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_level("warning"),
    help="Log warnings and errors alone; as --log-level warning. edldist run shows no progress then.",
)
_json = option(
    "--log-json",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_as_json,
    help="Log JSON: an object in each line on stderr, of every process that the command starts, too.",
)


def verbosity_options(command: Any) -> Any:
    """``-v``, ``-q`` and ``--log-json``, behind the command's own options."""
    return _verbose(_quiet(_json(command)))
