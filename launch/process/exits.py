"""How a command line ends: with an exit code of the design, and a word about what went wrong.

What it tells whoever keeps a process running, an engine or ``edldist run``::

    0    its work is done: nothing is left to do
    1    it failed; of a teacher worker also: another process has its id and its place
    2    what it was told (options, job file, model) cannot work: started again, it would end the same way;
         or those whom it is to talk to have another revision of edldist
    3    of a teacher worker: it is not the teacher that its group has, nor will be
    143  of a student node, a teacher worker or a coordinator: it was asked to stop, did so in order, and
         its work is not done. Started again, here or elsewhere, it goes on: a student from its checkpoint
    130  of these: somebody insisted, and it left as it was; otherwise as 143
    130  of ``edldist run``: the whole job was stopped, by whatever signal; the same command goes on

A process that is asked to stop before it has begun ends with 143, too, whichever signal asked it.
"""

from __future__ import annotations

import atexit
import select
import sys
import time
from typing import NoReturn

import click

from edldist.errors import ConfigError, EdlDistError, IncompatibleError, ModelError, ProtocolVersionError
from edldist.lifecycle.ending import end_quickly
from edldist.observe.logs import error_line, json_wanted
from edldist.observe.printable import printable
from edldist.signals import ASKING, EXIT_INTERRUPTED, EXIT_STOPPED, end_by_signals, ignore_signals
from edldist_launch.process.version import own_version

__all__ = [
    "EXIT_FAILED",
    "EXIT_INCOMPATIBLE",
    "EXIT_INTERRUPTED",
    "EXIT_STOPPED",
    "EXIT_USAGE",
    "run_command",
    "was_asked",
]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INCOMPATIBLE = 3
"""A teacher worker that is not the teacher whose name it serves under: starting it again changes nothing."""


def was_asked(code: int) -> bool:
    """Whether a child that ended with this code was asked to stop.

    Args:
        code: its exit code; negative for the signal that ended it, perhaps before it had handlers.
    """
    return code in (EXIT_STOPPED, EXIT_INTERRUPTED) or -code in ASKING


def run_command(command: click.Command, name: str) -> NoReturn:
    """Run a command on this process's arguments, and end the process with the code that it returns.

    Args:
        command: returns its exit code, or None for 0.
        name: what help calls it.
    """
    atexit.register(end_quickly)
    end_by_signals()
    try:
        code = command.main(prog_name=name, standalone_mode=False)
    except click.ClickException as exc:
        if json_wanted():
            print(error_line(exc.format_message(), time.time()), file=sys.stderr)
        else:
            exc.show()
        if exc.message.startswith(("No such option", "No such command")):
            # Perhaps another one than that of who wrote this command line.
            print(f"Error: {exc.message} (this is {own_version()})", file=sys.stderr)
        code = exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED
    except SystemExit as exc:  # click's own, where the output could not be written
        code = 0 if _reader_left() else exc.code
    except EdlDistError as exc:
        said = error_line(str(exc), time.time()) if json_wanted() else printable(f"error: {exc}")
        print(said, file=sys.stderr)
        code = _code(exc)
    ignore_signals()
    sys.exit(code if isinstance(code, int) else 0)


def _reader_left() -> bool:
    """Whether standard output is a pipe that its reader closed, as ``head`` does: it had all it wanted."""
    try:
        poll = select.poll()
        poll.register(1, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except OSError:
        return False


def _code(error: EdlDistError) -> int:
    if isinstance(error, IncompatibleError):
        return EXIT_INCOMPATIBLE
    return EXIT_USAGE if isinstance(error, ConfigError | ModelError | ProtocolVersionError) else EXIT_FAILED
