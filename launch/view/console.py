"""Texts as a person sees them: a console on which nothing that a member of a job says is read as markup."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from edldist.observe.printable import printable

__all__ = ["PlainConsole", "near", "output_option", "shown"]

PIPE_WIDTH = 240
"""Columns of what is no terminal, and so has no width to keep to: a table in a file or a pipe is whole."""
MOST_SHOWN = 4_000
"""Characters of one text. A traceback has its place in the log, not between two lines of progress."""


def shown(value: object) -> str:
    """Any value as text that a terminal shows and does not obey."""
    text = printable(str(value))
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} ..."


def near(path: Path) -> Path:
    """The path relative to the current folder, where that is shorter to read."""
    try:
        return path.relative_to(Path.cwd())
    except (ValueError, OSError):
        return path


def output_option(folder: Path) -> str:
    """``--output FOLDER`` of a command that a person copies into a shell."""
    return f"--output {shlex.quote(str(near(folder)))}"


class PlainConsole(Console):
    """A rich console for texts of other people: no markup, no emoji codes, no control characters.

    In a file or a pipe, where rich takes 80 columns for granted, it has as many as any table needs, or those
    that ``COLUMNS`` says.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)
        if not self.is_terminal and "width" not in settings and not os.environ.get("COLUMNS"):
            self.width = PIPE_WIDTH

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(shown(text), **settings)
