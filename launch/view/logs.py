"""``edldist logs``: lines of several processes, on a terminal or in a pipe."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import TextIO

from edldist.errors import ConfigError
from edldist.observe.printable import printable
from edldist_launch.contract.backend import Backend

__all__ = ["last_lines", "logs_of", "show_logs"]

COLOURS = (36, 32, 35, 34, 33)
"""Of terminals: cyan, green, magenta, blue, yellow."""


def logs_of(backend: Backend, name: str | None, follow: bool) -> Iterator[str]:
    """Lines of a role's processes, of one process, of one trial of a tuning, or of all of a job.

    Args:
        name: of a role, or what begins a process's lines, as ``teacher-0`` or ``trial-7``.

    Raises:
        ConfigError: the job has no such role, and no such process.
    """
    try:
        return backend.logs(name, follow)
    except ConfigError:
        heads = (f"{name}: ", f"{name}/")
        placed = {process.id for role in backend.state().roles for process in role.processes}
        if name not in placed and not any(line.startswith(heads) for line in backend.logs()):
            raise
        return (line for line in backend.logs(None, follow) if line.startswith(heads))


def last_lines(read: Callable[[bool], Iterable[str]], count: int, follow: bool) -> Iterator[str]:
    """The last lines of each process, and, to be followed, those that come after them.

    Args:
        read: all lines, each begun by its process's name, in the order of writing; True to go on with those
            that come.
        count: how many of each process.
    """
    told: Counter[str] = Counter()
    last: dict[str, deque[str]] = {}
    for line in read(False):
        whose = line.partition(": ")[0]
        told[whose] += 1
        last.setdefault(whose, deque(maxlen=count)).append(line)
    for lines in last.values():
        yield from lines
    if not follow:
        return
    for line in read(True):
        whose = line.partition(": ")[0]
        if told[whose]:
            told[whose] -= 1  # it is above, or was left out
        else:
            yield line


def show_logs(lines: Iterable[str], stream: TextIO, *, as_json: bool = False, at_once: bool = False) -> None:
    """Print lines as they come; on a terminal each process's name has a colour.

    A reader that goes away (``| head``) ends it. What a process printed is shown, and never obeyed.

    Args:
        as_json: an object in each line, with ``process`` and ``line``.
        at_once: no line waits for the next one, whoever reads them.
    """
    coloured = stream.isatty() and not os.environ.get("NO_COLOR") and not as_json
    colours: dict[str, int] = {}
    try:
        for line in lines:
            whose, _, said = line.partition(": ")
            if as_json:
                print(json.dumps({"process": whose, "line": said}), file=stream, flush=at_once)
                continue
            colour = colours.setdefault(whose, COLOURS[len(colours) % len(COLOURS)])
            name = f"\x1b[{colour}m{whose}\x1b[0m" if coloured else whose
            print(f"{name}: {printable(said)}", file=stream)
            if coloured or at_once:
                stream.flush()
        stream.flush()
    except BrokenPipeError:
        # What the interpreter flushes at its end has nowhere to go either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
