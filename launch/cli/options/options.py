"""How an option is declared, and those that several commands have."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edldist_launch.cli.options.option_types import COORDINATOR, HTTP, Option

__all__ = [
    "coordinator_option",
    "http_option",
    "import_from_option",
    "import_places",
    "labels_option",
    "link_options",
    "on_command_line",
    "option",
]


def option(*names: str, **settings: Any) -> Callable[[Any], Any]:
    """An option that ``EDLDIST_<OPTION>`` sets too; the option wins."""
    variable = "EDLDIST_" + names[0].removeprefix("--").split("/")[0].replace("-", "_").upper()
    settings.setdefault("envvar", variable)
    settings.setdefault("show_default", settings.get("default") is not None)
    return click.option(*names, cls=Option, **settings)


def on_command_line(name: str) -> bool:
    """Whether an option of this command was given there, and not by its variable."""
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


coordinator_option = option(
    "--coordinator",
    type=COORDINATOR,
    metavar="URL",
    required=True,
    help="Address of the coordinator, or file:FILE that says it.",
)

http_option = option(
    "--http",
    type=HTTP,
    metavar="HOST:PORT",
    help="Where probes ask for its health (/healthz, /readyz), and may ask it to leave (default: nowhere).",
)

labels_option = option(
    "--labels",
    is_flag=True,
    help="Label the job's data set ahead of time, as edldist label does here, and train nothing.",
)

import_from_option = option(
    "--import-from",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="Another folder to import from, after the current one: `run` gives that of the job file.",
)


def _use_keys(context: click.Context, parameter: click.Parameter, folder: str | None) -> None:
    """By the variable, where every process that this one starts finds them too. Checked before all else."""
    if folder:
        from edldist.keys.folder import KeyFolder
        from edldist.keys.pair import OPERATOR, ROLES

        KeyFolder(Path(folder)).ring(context.command.name if context.command.name in ROLES else OPERATOR)
        os.environ["EDLDIST_KEYS"] = os.path.abspath(folder)


keys_option = option(
    "--keys",
    type=click.Path(file_okay=False),
    metavar="DIR",
    expose_value=False,
    callback=_use_keys,
    help="Folder with the key of this role and known.json, as edldist keygen makes it: both ends of every "
    "connection prove who they are, and what they say is sealed (default: no keys).",
)


def _allow_open(context: click.Context, parameter: click.Parameter, allowed: bool) -> None:
    """By the variable, as for keys."""
    if allowed:
        from edldist.keys.open_link import INSECURE_VARIABLE, say_insecure

        os.environ[INSECURE_VARIABLE] = "1"
        say_insecure()


insecure_option = option(
    "--insecure",
    is_flag=True,
    expose_value=False,
    callback=_allow_open,
    help="Without keys, listen and connect beyond this machine all the same: whoever reaches a port may take "
    "part in the job and read what is said.",
)


def link_options(command: Any) -> Any:
    """How a command's connections are sealed, or that they are not."""
    return keys_option(insecure_option(command))


def import_places(import_from: str | None) -> list[str]:
    """The folders from which a command's models and scripts may import."""
    return [os.getcwd(), *([os.path.abspath(import_from)] if import_from else [])]
