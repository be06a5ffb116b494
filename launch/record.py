"""The output folder of a job: what is written where, and how it survives a kill."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edldist.config import JobConfig, dump_job, load_job
from edldist.errors import ConfigError

__all__ = ["JobFolder", "read_events"]


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
        self._events: IO[str] | None = None
        try:
            (self.path / "logs").mkdir(parents=True, exist_ok=True)
            (self.path / "checkpoints").mkdir(exist_ok=True)
            self._hold()
            self._check_same_job(job)
            self._replace("job.yaml", dump_job(job))
            (self.path / "result.json").unlink(missing_ok=True)
            self._events = self._open_events()
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
        for stream in (self._events, self._lock):
            if stream is not None:
                stream.close()
        self._events = self._lock = None

    @property
    def events_path(self) -> Path:
        return self.path / "events.jsonl"

    def log_path(self, role: str, member_id: str = "") -> Path:
        """``logs/<role>-<id>.log``, or ``logs/<role>.log``."""
        return self.path / "logs" / (f"{role}-{member_id}.log" if member_id else f"{role}.log")

    def event(self, line: Mapping[str, Any]) -> None:
        """Append one event; it is in the file when this returns."""
        if self._events is None:
            raise RuntimeError("the job folder is closed")
        self._events.write(json.dumps(_finite(line), ensure_ascii=False) + "\n")
        self._events.flush()

    def result(self, result: Mapping[str, Any]) -> None:
        """Replace ``result.json``; a reader sees the old one or the whole new one."""
        self._replace("result.json", json.dumps(_finite(result), indent=2, ensure_ascii=False) + "\n")

    def _hold(self) -> None:
        self._lock = (self.path / ".lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "unknown"
            raise ConfigError(
                f"another run (pid {holder}) is writing to {self.path}; "
                "wait for it, or choose another --output"
            ) from None
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

    def _open_events(self) -> IO[str]:
        path = self.events_path
        torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        events = path.open("a", encoding="utf-8")
        if torn:  # a killed run left half a line
            events.write("\n")
        return events

    def _replace(self, name: str, text: str) -> None:
        temporary = self.path / f".{name}.new"
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self.path / name)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """The events of a file in order; half-written lines are skipped."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            try:
                event = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(event, dict) and isinstance(event.get("t"), int | float) and "event" in event:
                yield event


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON cannot say."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
