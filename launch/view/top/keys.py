"""What a terminal sends when somebody presses a key, by the names of the keys. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["Keys"]

_NAMED = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1b[5~": "page up",
    "\x1b[6~": "page down",
    "\x1b[H": "home",
    "\x1b[F": "end",
    "\x1b[1~": "home",
    "\x1b[4~": "end",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\x1bOH": "home",
    "\x1bOF": "end",
    "\x1b[Z": "back tab",
    "\x1b": "escape",
    "\t": "tab",
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\b": "backspace",
    "\x03": "interrupt",
    "\x04": "interrupt",
}
_ONE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1bO[ -~]|\x1b(?![\[O])|[^\x1b]", re.DOTALL)
_MOST_OPEN = 32
"""Characters of a sequence that has not ended: more than any key sends."""


class Keys:
    """Cuts what a terminal sends into keys: a character by itself, others by their names.

    A sequence may come in pieces. An escape that nothing follows is the key itself: ``rest`` gives it when no
    more has come for a while.
    """

    def __init__(self) -> None:
        self._open = ""

    def press(self, data: bytes) -> Iterator[str]:
        """The keys that are whole by now; sequences that are no key's are dropped."""
        text = self._open + data.decode(errors="ignore")
        at = 0
        while at < len(text):
            if text[at:] in ("\x1b", "\x1b[", "\x1bO"):
                break
            found = _ONE.match(text, at)
            if found is None:
                if len(text) - at <= _MOST_OPEN:
                    break
                at += 1
                continue
            at = found.end()
            key = _NAMED.get(found[0], found[0])
            if found[0] in _NAMED or key.isprintable():
                yield key
        self._open = text[at:]

    def rest(self) -> Iterator[str]:
        """The escape key, if it was pressed and nothing followed."""
        if self._open == "\x1b":
            yield "escape"
        self._open = ""
