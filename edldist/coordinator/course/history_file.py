"""The history in a file: what one coordinator leaves to the next, and to who draws a report.

The disk may hang or be full: the file is written by a thread of its own, as a whole (who reads sees the
former content or the new one), and training never waits for it. What happened in the last ``KEEP_EVERY_S``
before a kill is not in it.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import msgspec

from edldist.coordinator.course.history import RunHistory
from edldist.files import replace_file
from edldist.wire.messages import MAX_STATUS_BYTES, History

__all__ = ["HISTORY", "HistoryFile", "read_history"]

logger = logging.getLogger(__name__)

HISTORY = "history.json"
"""Its name in a job's folder."""
KEEP_EVERY_S = 5.0
END_S = 5.0
"""How long the end waits for a disk."""


def read_history(path: Path) -> History | None:
    """What a coordinator kept; None where no file is, or none that can be read (which is said)."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_STATUS_BYTES + 1)
        if len(content) > MAX_STATUS_BYTES:
            raise ValueError(f"more than {MAX_STATUS_BYTES} bytes")
        return msgspec.json.decode(content, type=History)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as exc:  # msgspec's errors are ValueErrors
        logger.warning("%s tells nothing of the run so far (%s): its history begins anew", path, exc)
        return None


class HistoryFile:
    """Writes a history down, now and then and at the end, until it is closed.

    Args:
        path: of the file; what it holds is gone on with.
        history: nothing has been taken in yet.
    """

    def __init__(self, path: Path, history: RunHistory) -> None:
        self._path = path.absolute()
        self._history = history
        self._kept = history.changes
        self._failing = False
        self._closed = threading.Event()
        if (kept := read_history(self._path)) is not None:
            history.recall(kept)
        self._thread = threading.Thread(target=self._run, name="edldist-history", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what is new, and end; a disk that hangs is not waited for longer than ``END_S``."""
        self._closed.set()
        self._thread.join(END_S)
        if self._thread.is_alive():
            logger.warning("%s has not answered for %g s: the history ends there", self._path, END_S)

    def _run(self) -> None:
        while not self._closed.wait(KEEP_EVERY_S):
            self._keep()
        self._keep()

    def _keep(self) -> None:
        changes = self._history.changes
        if changes == self._kept:
            return
        try:
            replace_file(self._path, msgspec.json.encode(self._history.tell()))
        except OSError as exc:
            if not self._failing:
                self._failing = True
                logger.warning("cannot write %s (%s): the job goes on", self._path, exc.strerror or exc)
            return
        self._failing = False
        self._kept = changes
