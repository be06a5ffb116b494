"""How a command line ends: with an exit code of the design, and a word about what went wrong."""

from __future__ import annotations

import atexit
import sys
from typing import NoReturn

import click

from edldist.errors import ConfigError, EdlDistError, IncompatibleError, ModelError
from edldist.lifecycle.ending import end_quickly
from edldist.observe.printable import printable

__all__ = ["EXIT_FAILED", "EXIT_INCOMPATIBLE", "EXIT_INTERRUPTED", "EXIT_USAGE", "run_command"]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INCOMPATIBLE = 3
"""A teacher worker that is not the teacher whose name it serves under: starting it again changes nothing."""
EXIT_INTERRUPTED = 130


def run_command(command: click.Command, name: str) -> NoReturn:
    """Run a command on this process's arguments, and end the process with the code that it returns.

    Args:
        command: returns its exit code, or None for 0.
        name: what help calls it.
    """
    atexit.register(end_quickly)
    try:
        code = command.main(prog_name=name, standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        code = exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except EdlDistError as exc:
        print(printable(f"error: {exc}"), file=sys.stderr)
        code = _code(exc)
    sys.exit(code if isinstance(code, int) else 0)


def _code(error: EdlDistError) -> int:
    if isinstance(error, IncompatibleError):
        return EXIT_INCOMPATIBLE
    return EXIT_USAGE if isinstance(error, ConfigError | ModelError) else EXIT_FAILED
