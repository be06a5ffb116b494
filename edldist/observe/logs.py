"""Log lines of a process: date and time, level, role and id; or these as JSON. Only commands install this."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TextIO

from edldist.errors import ConfigError
from edldist.observe.printable import printable

__all__ = ["JSON_VARIABLE", "LEVEL_VARIABLE", "error_line", "install_logging", "json_wanted"]

LEVEL_VARIABLE = "EDLDIST_LOG_LEVEL"
JSON_VARIABLE = "EDLDIST_LOG_JSON"

_TIME = "%Y-%m-%d %H:%M:%S"


def json_wanted() -> bool:
    """Whether this process's log is to be JSON: somebody who started it has said so."""
    return os.environ.get(JSON_VARIABLE, "").lower() not in ("", "0", "false", "no", "off")


def install_logging(prefix: str, stream: TextIO | None = None) -> None:
    """Send the records of ``edldist`` and ``launch`` to standard error, each with a prefix.

    ``EDLDIST_LOG_LEVEL`` sets the level (INFO). With ``EDLDIST_LOG_JSON`` each is an object in a line, with
    ``t`` (unix seconds), ``level``, ``process`` (the prefix), ``logger``, ``message`` and, where there is
    one, ``error`` (a traceback).

    Raises:
        ConfigError: an unknown level.
    """
    level = os.environ.get(LEVEL_VARIABLE, "INFO").upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ConfigError(f"{LEVEL_VARIABLE}={level!r}: use DEBUG, INFO, WARNING or ERROR")
    _Process.name = prefix
    handler = logging.StreamHandler(stream or sys.stderr)
    if json_wanted():
        handler.setFormatter(_JsonFormatter(prefix))
    else:
        shown = prefix.replace("%", "%%")
        form = f"%(asctime)s.%(msecs)03d %(levelname)-7s {shown}: %(message)s"
        handler.setFormatter(_Formatter(form, _TIME))
    for name in ("edldist", "edldist_launch"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level)
        logger.propagate = False


def error_line(message: str, t: float) -> str:
    """The last words of a command, as a line of a log in JSON.

    Args:
        t: unix seconds.
    """
    return _line(t, "error", _Process.name, "edldist", message)


class _Process:
    """What this process is called in its log."""

    name = "edldist"


def _line(t: float, level: str, process: str, logger: str, message: str, error: str = "") -> str:
    told = {"t": round(t, 6), "level": level, "process": process, "logger": logger, "message": message}
    return json.dumps(told | ({"error": error} if error else {}))


class _Formatter(logging.Formatter):
    """Names and errors of other processes are in many lines, and standard error may be a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _JsonFormatter(logging.Formatter):
    """One object in a line: what others have said is inside strings, which JSON escapes."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        error = self.formatException(record.exc_info) if record.exc_info else ""
        level, message = record.levelname.lower(), record.getMessage()
        return _line(record.created, level, self._process, record.name, message, error)
