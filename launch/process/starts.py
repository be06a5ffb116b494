"""How often processes were started under one name, where nobody counts but a file."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from edldist.files import replace_file

__all__ = ["count_start"]

logger = logging.getLogger(__name__)


def count_start(file: Path) -> int:
    """Count this start in a file; how many there were before.

    A file that cannot be read counts none. One that cannot be written is said: the next start will not know
    of this one, and has to wait until this one is missed.
    """
    before = 0
    with contextlib.suppress(OSError, ValueError):
        before = max(0, int(file.read_text(encoding="utf-8")))
    try:
        replace_file(file, f"{before + 1}\n".encode())
    except OSError as exc:
        logger.warning("cannot count this start in %s (%s)", file, exc.strerror or exc)
    return before
