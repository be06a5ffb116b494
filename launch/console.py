"""A console on which every text is text: nothing that a member of a job says is read as markup."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

__all__ = ["PlainConsole", "shown"]

MOST_SHOWN = 4_000
"""Characters of one text. A traceback has its place in the log, not between two lines of progress."""

# Escape sequences would let whoever names a worker move the cursor, or type into the terminal.
_CONTROL = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def shown(value: object) -> str:
    """Any value as text that a terminal shows and does not obey."""
    text = str(value).encode(errors="replace").decode().translate(_CONTROL)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]} ..."


class PlainConsole(Console):
    """A rich console for texts of other people: no markup, no emoji codes, no control characters."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(shown(text), **settings)
