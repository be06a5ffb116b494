"""Log lines of a process: date and time, level, role and id. Only commands install this."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

from edldist.errors import ConfigError
from edldist.observe.printable import printable

__all__ = ["install_logging"]


def install_logging(prefix: str, stream: TextIO | None = None) -> None:
    """Send the records of ``edldist`` and ``launch`` to standard error, each with a prefix.

    ``EDLDIST_LOG_LEVEL`` sets the level (INFO).

    Raises:
        ConfigError: an unknown level.
    """
    level = os.environ.get("EDLDIST_LOG_LEVEL", "INFO").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ConfigError(f"EDLDIST_LOG_LEVEL={level!r}: use DEBUG, INFO, WARNING or ERROR")
    handler = logging.StreamHandler(stream or sys.stderr)
    shown = prefix.replace("%", "%%")
    handler.setFormatter(_Formatter(f"%(asctime)s %(levelname)-7s {shown}: %(message)s", "%Y-%m-%d %H:%M:%S"))
    for name in ("edldist", "edldist_launch"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False


class _Formatter(logging.Formatter):
    """Names and errors of other processes are in many lines, and standard error may be a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))
