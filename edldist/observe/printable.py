"""Text of other people, as a terminal may show it.

Escape sequences would let whoever names a worker, prints into a log or raises an error move the cursor, hide
lines, or type into the terminal of a person who only looks. Files keep what was said; what is shown does not.
"""

from __future__ import annotations

__all__ = ["printable"]

_CONTROL = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def printable(text: str) -> str:
    """The text with every control character but new lines and tabs replaced, and what is no Unicode, too."""
    return text.encode(errors="replace").decode().translate(_CONTROL)
