"""Seeds on a sweep's command line."""

from __future__ import annotations

import argparse
from typing import Any

__all__ = ["Different", "seed"]


def seed(text: str) -> int:
    """A seed of a sweep: what numpy and torch take."""
    if not text.isdecimal() or int(text) >= 1 << 32:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: use whole numbers from 0 to {(1 << 32) - 1}")
    return int(text)


class Different(argparse.Action):
    """Refuses a value that is given twice: a mean over seeds would count one as two."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if twice := [value for value in values if values.count(value) > 1]:
            parser.error(f"argument {option_string}: {twice[0]} is given twice")
        setattr(namespace, self.dest, values)
