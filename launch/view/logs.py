"""``edldist logs``: lines of several processes, on a terminal or in a pipe."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TextIO

from edldist.observe.printable import printable

__all__ = ["show_logs"]

COLOURS = (36, 32, 35, 34, 33)
"""Of terminals: cyan, green, magenta, blue, yellow."""


def show_logs(lines: Iterable[str], stream: TextIO) -> None:
    """Print lines as they come; on a terminal each process's name has a colour.

    A reader that goes away (``| head``) ends it. What a process printed is shown, and never obeyed.
    """
    coloured = stream.isatty() and not os.environ.get("NO_COLOR")
    colours: dict[str, int] = {}
    try:
        for line in lines:
            whose, _, said = line.partition(": ")
            colour = colours.setdefault(whose, COLOURS[len(colours) % len(COLOURS)])
            name = f"\x1b[{colour}m{whose}\x1b[0m" if coloured else whose
            print(f"{name}: {printable(said)}", file=stream)
            if coloured:
                stream.flush()
        stream.flush()
    except BrokenPipeError:
        # What the interpreter flushes at its end has nowhere to go either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
