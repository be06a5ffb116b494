"""The output folder of a job: what is written where, and how it survives a kill and a full disk."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import msgspec

from edldist.config import JobConfig
from edldist.errors import ConfigError, EdlDistError
from edldist.files import lock_file, replace_file
from edldist_launch.record.earlier import Beginning, EarlierRun, last_checkpoint, set_aside
from edldist_launch.record.eventfile import EventFile, json_text
from edldist_launch.record.job_file import replace_job
from edldist_launch.record.memory import Memory

__all__ = [
    "FolderHeldError",
    "JobFolder",
    "LOCK",
    "OUTPUTS",
    "RecordFolder",
    "default_folders",
    "free_folder",
    "hold_folder",
    "is_held",
    "open_default_folder",
    "open_record",
]


HANDOVER_S = 60.0
"""After so long, who holds a coordinator's folder is not its predecessor that is just ending."""
LOOK_S = 0.5
OUTPUTS = Path("out")
"""Where default folders lie."""
ENDINGS = ("result.json", "report.html", "curves.png")
"""Files that tell of a run's end, and so of nothing while it goes on."""
LOCK = ".lock"
"""File of a folder that whoever runs a job there has locked."""


Folder = TypeVar("Folder", bound="RecordFolder")


class FolderHeldError(ConfigError):
    """Another run writes to the folder."""


class RecordFolder:
    """Holds an output folder, and writes ``events.jsonl``, ``result.json`` and the names of logs there.

    One process at a time holds it.

    Raises (on opening):
        ConfigError: the folder is held by another run, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: IO[str] | None = None
        self._events: EventFile | None = None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path)
            self._begin()
        except OSError as exc:
            self.close()
            raise ConfigError(f"cannot write the output folder {self.path}: {exc}") from exc
        except EdlDistError:
            self.close()
            raise

    def _begin(self) -> None:
        """The folder is ours: make what a record needs."""
        self._events = EventFile(self.path / "events.jsonl")

    def __enter__(self: Folder) -> Folder:
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

    def forget_result(self) -> None:
        """The job goes on: what it ended with before is no result any more."""
        for name in ENDINGS:
            with contextlib.suppress(OSError):
                (self.path / name).unlink(missing_ok=True)

    def keep(self, memory: Memory) -> None:
        """Keep figures for whoever watches this job next.

        Raises:
            OSError: they were not written.
        """
        replace_file(self._memory_path, msgspec.json.encode(memory))

    def kept(self) -> Memory | None:
        """What a predecessor kept; None where nobody did, or it cannot be read."""
        with contextlib.suppress(OSError, msgspec.DecodeError):
            return msgspec.json.decode(self._memory_path.read_bytes(), type=Memory)
        return None

    def forget_kept(self) -> None:
        """The job has ended, or begins: the next one's figures are its own."""
        with contextlib.suppress(OSError):
            self._memory_path.unlink(missing_ok=True)

    @property
    def _memory_path(self) -> Path:
        return self.path / ".figures.json"

    def write_job(self, job: JobConfig) -> None:
        """Replace ``job.yaml``.

        Raises:
            OSError: it was not written.
        """
        replace_job(self.path / "job.yaml", job)

    def last_checkpoint(self) -> int | None:
        """The step of the latest whole checkpoint in ``checkpoints/``; None without one."""
        return last_checkpoint(self.path)


@contextlib.contextmanager
def hold_folder(path: Path) -> Iterator[None]:
    """Meanwhile no other process runs a job in a folder that is there, or hands one over to an engine.

    Raises:
        FolderHeldError: one does.
        OSError: the folder cannot be written.
    """
    with _locked(path):
        yield


def is_held(path: Path) -> bool:
    """Whether a process on this host, or one that shares its locks, runs a job in a folder that is there."""
    with contextlib.suppress(OSError), (path / LOCK).open("r+b") as lock:
        return not lock_file(lock.fileno(), path)
    return False


def _locked(path: Path) -> IO[str]:
    """The one lock of a folder, held until it is closed, by whoever runs or begins a job on any engine."""
    lock = (path / LOCK).open("a+", encoding="utf-8")
    try:
        if not lock_file(lock.fileno(), path):
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise FolderHeldError(
                f"another run (pid {holder}) is writing to {path}; wait for it, or choose another --output"
            )
    except BaseException:
        lock.close()
        raise
    with contextlib.suppress(OSError):  # a full disk: the lock holds without its text
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    return lock


class JobFolder(RecordFolder):
    """Writes ``job.yaml``, ``events.jsonl``, ``result.json`` and names the logs of one job.

    Opening the folder of an unfinished run of the same job goes on with it: events and logs are
    appended to, checkpoints stay, the result is replaced. One run at a time holds the folder.

    Args:
        path: the folder; it is made where it is missing.
        job: as resolved.
        beginning: what becomes of an earlier run that the folder holds.
        refuse: asked about the folder once it is held, and before anything is written: a job on a cluster may
            go on there, which holds no lock. It raises where one does.

    Attributes:
        finished: the result of an earlier run of this very job that came to its end; there is nothing left to
            run then, and nothing is written.
        earlier: the run that this one goes on with, or None.
        set_aside: where a fresh beginning moved an earlier run, or None.

    Raises (on opening):
        ConfigError: the folder holds another job, or checkpoints or the result of another configuration, is
            held by another run, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        job: JobConfig,
        beginning: Beginning = "resume",
        refuse: Callable[[Path], object] = lambda path: None,
    ) -> None:
        self.finished: Mapping[str, Any] | None = None
        self.earlier: EarlierRun | None = None
        self.set_aside: Path | None = None
        self._job, self._beginning, self._refuse = job, beginning, refuse
        try:
            super().__init__(path)
        except FolderHeldError:
            refuse(path)  # a job on a cluster is known by name; its coordinator holds the lock where it can
            raise

    def _begin(self) -> None:
        self._refuse(self.path)
        earlier = EarlierRun.read(self.path)
        if earlier is not None:
            earlier.check(self._job, self.path, self._beginning)
            if self._beginning == "resume" and earlier.finished:
                self.finished = earlier.result
                return
        if self._beginning == "fresh":
            self.set_aside = set_aside(self.path)
        else:
            self.earlier = earlier
        for name in ENDINGS:
            (self.path / name).unlink(missing_ok=True)
        self.forget_kept()
        (self.path / "logs").mkdir(exist_ok=True)
        (self.path / "checkpoints").mkdir(exist_ok=True)
        self.write_job(self._job)
        super()._begin()


def open_record(path: Path, job: JobConfig | None = None) -> RecordFolder:
    """The folder of a coordinator that nobody's ``edldist run`` started.

    A cluster may start a coordinator while the one before it, of the same job, is still ending: it is waited
    for.

    Args:
        job: what it is the record of, which is written down there; None where nobody knows.

    Raises:
        ConfigError: it cannot be written; or without a job, it is that of another run, whose result would be
            lost.
    """
    if job is None:
        if (path / "job.yaml").exists():
            raise ConfigError(
                f"--output {path}: a run of edldist run is recorded there; choose another folder"
            )
        return RecordFolder(path)
    deadline = time.monotonic() + HANDOVER_S
    while True:
        try:
            folder = RecordFolder(path)
            break
        except FolderHeldError:
            if time.monotonic() > deadline:
                raise
        time.sleep(LOOK_S)
    try:
        replace_job(path / "job.yaml", job)
    except OSError as exc:
        folder.close()
        raise ConfigError(f"cannot write the output folder {path}: {exc}") from exc
    return folder


def open_default_folder(
    places: Path, job: JobConfig, beginning: Beginning, refuse: Callable[[Path], object] = lambda path: None
) -> JobFolder:
    """The folder of a run for which nobody named one: the first of ``default_folders`` that nobody holds.

    Args:
        refuse: as of ``JobFolder``; what it raises is passed on.

    Raises:
        ConfigError: it cannot be written.
    """
    for path in default_folders(places, job, beginning):
        with contextlib.suppress(FolderHeldError):
            return JobFolder(path, job, beginning, refuse)
    raise AssertionError("there are numbers without end")


def free_folder(places: Path, job: JobConfig, beginning: Beginning) -> Path:
    """The folder that ``open_default_folder`` would take now."""
    for path in default_folders(places, job, beginning):
        lock = path / LOCK
        if not lock.exists():
            return path
        with lock.open("a") as stream:
            if lock_file(stream.fileno(), path):
                return path
    raise AssertionError("there are numbers without end")


def default_folders(places: Path, job: JobConfig, beginning: Beginning) -> Iterator[Path]:
    """``NAME``, or ``NAME-2``, ``NAME-3`` and so on, without end.

    The last one that exists is gone on with if its run did not come to its end and has the same
    configuration; else a run gets a number of its own.
    """
    number = 1
    while _numbered(places, job.name, number + 1).exists():
        number += 1
    latest = _numbered(places, job.name, number)
    if beginning == "extend" or _goes_on(latest, job, beginning):
        yield latest
    while True:
        number += 1
        yield _numbered(places, job.name, number)


def _numbered(places: Path, name: str, number: int) -> Path:
    return places / (name if number == 1 else f"{name}-{number}")


def _goes_on(path: Path, job: JobConfig, beginning: Beginning) -> bool:
    try:
        earlier = EarlierRun.read(path)
        if earlier is not None:
            earlier.check(job, path, beginning)
    except ConfigError:
        return False
    return earlier is None or not (beginning == "fresh" or earlier.finished)
