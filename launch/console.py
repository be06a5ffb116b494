"""A console on which every text is text: nothing that a member of a job says is read as markup."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from edldist.observe.printable import printable

__all__ = ["PlainConsole", "shown"]

MOST_SHOWN = 4_000
"""Characters of one text. A traceback has its place in the log, not between two lines of progress."""


def shown(value: object) -> str:
    """Any value as text that a terminal shows and does not obey."""
    text = printable(str(value))
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} ..."


class PlainConsole(Console):
    """A rich console for texts of other people: no markup, no emoji codes, no control characters."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(shown(text), **settings)
