"""The keys of this process while it runs: they may be rotated under it.

A file system may hang for minutes, and labels flow on meanwhile, so the folder is read in a thread that
nobody waits for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from pathlib import Path

from edldist.errors import ConfigError
from edldist.keys.folder import KeyFolder
from edldist.keys.keyring import Keyring
from edldist.keys.open_link import KEYS_VARIABLE

__all__ = ["LiveKeys", "job_keys"]

logger = logging.getLogger(__name__)

LOOK_S = 1.0


class LiveKeys:
    """The keys of one role from a folder, read anew when it changes. Safe from any thread.

    Args:
        folder: with ``known.json`` and the role's key.
        role: of this process.

    Raises:
        ConfigError: the folder has no usable key of that role.
    """

    def __init__(self, folder: Path, role: str) -> None:
        self._folder = KeyFolder(folder)
        self.role = role
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        # Before the keys themselves: what changes in between is seen to have changed.
        self._signature = self._folder.signature()
        self._ring = self._folder.ring(role)
        self._look_at = time.monotonic() + LOOK_S
        self._said = ""

    @property
    def ring(self) -> Keyring:
        """The keys as they were read last. Those that cannot be read leave the former ones, which is said."""
        if time.monotonic() >= self._look_at and self._lock.acquire(blocking=False):
            try:
                self._look_at = time.monotonic() + LOOK_S
                if self._reader is None or not self._reader.is_alive():  # else it waits for the file system
                    self._reader = threading.Thread(target=self._read, name="edldist-keys", daemon=True)
                    with contextlib.suppress(RuntimeError):  # no thread now: the next look may get one
                        self._reader.start()
            finally:
                self._lock.release()
        return self._ring

    def _read(self) -> None:
        if (signature := self._folder.signature()) == self._signature:
            return
        try:
            self._ring, self._signature, self._said = self._folder.ring(self.role), signature, ""
        except (ConfigError, OSError) as exc:
            if str(exc) != self._said:
                self._said = str(exc)
                logger.warning("going on with the former keys: %s", exc)


def job_keys(role: str) -> LiveKeys | None:
    """The keys that ``EDLDIST_KEYS`` names a folder of; None without it.

    Raises:
        ConfigError: as ``LiveKeys``.
    """
    folder = os.environ.get(KEYS_VARIABLE, "")
    return LiveKeys(Path(folder), role) if folder else None
