"""The output folder of a job: what is written where, and how it survives a kill and a full disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edldist.checkpoint.manifest import MARKER
from edldist.checkpoint.stores.local import LocalStore
from edldist.config import JobConfig, dump_job, load_job
from edldist.errors import ConfigError
from edldist.files import lock_file, replace_file
from edldist_launch.eventfile import EventFile, json_text

__all__ = ["JobFolder"]


class JobFolder:
    """Writes ``job.yaml``, ``events.jsonl``, ``result.json`` and names the logs of one job.

    Opening the folder of an earlier run of the same job goes on with it: events and logs are
    appended to, checkpoints stay, the result is replaced. One run at a time holds the folder.

    Raises (on opening):
        ConfigError: the folder holds another job, is held by another run, or cannot be written.
    """

    def __init__(self, path: Path, job: JobConfig) -> None:
        self.path = path.absolute()
        self._lock: IO[str] | None = None
        self._events: EventFile | None = None
        try:
            (self.path / "logs").mkdir(parents=True, exist_ok=True)
            (self.path / "checkpoints").mkdir(exist_ok=True)
            self._hold()
            self._check_same_job(job)
            replace_file(self.path / "job.yaml", dump_job(job).encode())
            (self.path / "result.json").unlink(missing_ok=True)
            self._events = EventFile(self.path / "events.jsonl")
        except OSError as exc:
            self.close()
            raise ConfigError(f"cannot write the output folder {self.path}: {exc}") from exc
        except ConfigError:
            self.close()
            raise

    def __enter__(self) -> JobFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the folder."""
        if self._events is not None:
            self._events.close()
        if self._lock is not None:
            with contextlib.suppress(OSError):
                self._lock.close()
        self._events = self._lock = None

    @property
    def events_path(self) -> Path:
        return self.path / "events.jsonl"

    def log_path(self, role: str, member_id: str = "") -> Path:
        """``logs/<role>-<id>.log``, or ``logs/<role>.log``."""
        return self.path / "logs" / (f"{role}-{member_id}.log" if member_id else f"{role}.log")

    def event(self, line: Mapping[str, Any]) -> None:
        """Append one event; it is in the file when this returns, or waits for a disk that takes it."""
        if self._events is None:
            raise RuntimeError("the job folder is closed")
        self._events.append(line)

    def result(self, result: Mapping[str, Any]) -> None:
        """Replace ``result.json``; a reader sees the old one or the whole new one.

        Raises:
            OSError: it was not written.
        """
        replace_file(self.path / "result.json", f"{json_text(result, indent=2)}\n".encode())

    def last_checkpoint(self) -> int | None:
        """The step of the latest whole checkpoint in ``checkpoints/``; None without one."""
        store = LocalStore(self.path / "checkpoints")
        with contextlib.suppress(OSError):
            return next(
                (step for step, name in store.checkpoints() if (store.folder(name) / MARKER).exists()), None
            )
        return None

    def _hold(self) -> None:
        self._lock = (self.path / ".lock").open("a+", encoding="utf-8")
        if not lock_file(self._lock.fileno(), self.path):
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
            raise ConfigError(
                f"another run (pid {holder}) is writing to {self.path}; "
                "wait for it, or choose another --output"
            )
        with contextlib.suppress(OSError):  # a full disk: the lock holds without its text
            self._lock.truncate(0)
            self._lock.write(str(os.getpid()))
            self._lock.flush()

    def _check_same_job(self, job: JobConfig) -> None:
        earlier = self.path / "job.yaml"
        if not earlier.exists():
            return
        try:
            name = load_job(earlier).name
        except ConfigError as exc:
            raise ConfigError(
                f"{self.path} holds a job.yaml that cannot be read; choose another --output. It says:\n{exc}"
            ) from exc
        if name != job.name:
            raise ConfigError(
                f"{self.path} belongs to job {name!r}, this is job {job.name!r}; choose another --output"
            )
