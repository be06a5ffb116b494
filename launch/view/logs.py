"""``edldist logs``: lines of several processes, on a terminal or in a pipe."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TextIO

from edldist.errors import ConfigError
from edldist.observe.printable import printable
from edldist_launch.contract.backend import Backend

__all__ = ["last_lines", "logs_of", "show_logs"]

COLOURS = (36, 32, 35, 34, 33)
"""Of terminals: cyan, green, magenta, blue, yellow."""


def logs_of(backend: Backend, names: Sequence[str], follow: bool) -> Iterator[str]:
    """Lines of the processes of some roles, of some processes, of trials of a tuning, or of all of a job.

    Args:
        names: of roles, or what begins processes' lines, as ``teacher-0`` or ``trial-7``; none for all.

    Raises:
        ConfigError: the job has no such role, and no such process; or some names are of roles, others not.
    """
    try:
        return backend.logs(*names, follow=follow)
    except ConfigError:
        roles = {role.name for role in backend.state().roles}
        if mixed := roles & set(names):
            one, other = sorted(mixed)[0], next(name for name in names if name not in roles)
            if _are_known(backend, [other]):
                words = f"{one} is a role and {other} is a process: name roles, or processes"
                raise ConfigError(words) from None
            raise
        if not _are_known(backend, names):
            raise
        heads = _heads(names)
        return (line for line in backend.logs(follow=follow) if line.startswith(heads))


def _are_known(backend: Backend, names: Sequence[str]) -> bool:
    """Whether each of some names is a process that was placed, or that has printed something."""
    placed = {process.id for role in backend.state().roles for process in role.processes}
    left = {name for name in names if name not in placed}
    for line in backend.logs() if left else ():
        left = {name for name in left if not line.startswith(_heads([name]))}
        if not left:
            break
    return not left


def _heads(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(head for name in names for head in (f"{name}: ", f"{name}/"))


def last_lines(read: Callable[[bool], Iterable[str]], count: int, follow: bool) -> Iterator[str]:
    """The last lines of each process, and, to be followed, those that come after them.

    Args:
        read: all lines, each begun by its process's name, in the order of writing; True to go on with those
            that come.
        count: how many of each process.
    """
    told: Counter[str] = Counter()
    last: dict[str, deque[tuple[int, str]]] = {}
    for number, line in enumerate(read(False)):
        whose = line.partition(": ")[0]
        told[whose] += 1
        last.setdefault(whose, deque(maxlen=count)).append((number, line))
    for _, line in sorted(each for lines in last.values() for each in lines):
        yield line
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
