"""``stages.jsonl``: how long the stages of single tasks took in teacher workers, one JSON object a line.

Workers send a few such ways with their heartbeats; what becomes of them::

    heartbeat --take--> waiting, a bounded list --the writer's thread--> stages.jsonl
                           |                                               |
                           +-- full: dropped, and counted                  +-- too long: stages.old.jsonl

So there are at most two files of ``MOST_BYTES`` each, and they hold the latest rows. The coordinator never
waits for the disk. One that takes nothing is said once, rows are dropped meanwhile, and written again as soon
as it takes them.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edldist.wire.messages import STAGES, Register, StageRow

__all__ = ["STAGES_FILE", "STAGES_FILE_BEFORE", "StageFile"]

logger = logging.getLogger(__name__)

STAGES_FILE, STAGES_FILE_BEFORE = "stages.jsonl", "stages.old.jsonl"
"""Their names in a job's folder: the rows, and those before them."""
MOST_BYTES = 32 << 20
"""Of either file: some hundred thousand rows."""
MOST_ROWS_S = 100.0
"""Of all workers together; each member may tell an equal part of them, a second's worth at once."""
MOST_WAITING = 2_000
WRITE_EVERY_S = 1.0
END_S = 5.0
"""How long the end waits for a disk."""


class _Line(msgspec.Struct):
    t: float
    worker: str
    device: str
    group: str
    batch: int
    rows: int
    tasks: int
    bytes_in: int
    bytes_out: int
    stages: dict[str, float]
    total_s: float
    wait_s: dict[str, float]


class StageFile:
    """Appends rows, until it is closed. ``take`` is for one thread; the disk has another.

    Args:
        path: of the file; rows are added to what is there.
        most_bytes: after so many the file is put aside, and a new one begun.

    Attributes:
        dropped: rows that nobody wrote down, because there were too many or the disk took none.
    """

    def __init__(self, path: Path, most_bytes: int = MOST_BYTES) -> None:
        self._path = path.absolute()
        self._before = self._path.with_name(STAGES_FILE_BEFORE)
        self._most_bytes = most_bytes
        self._waiting: deque[bytes] = deque()
        self._due: dict[str, float] = {}  # by worker: when its next row may come
        self._failing = False
        self._closed = threading.Event()
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="edldist-stages", daemon=True)
        self._thread.start()

    def take(self, worker: Register, rows: Sequence[StageRow], members: int, now: float, wall: float) -> None:
        """A worker told of some tasks.

        Args:
            worker: as it is registered.
            members: how many there are: the room is shared with so many at most.
            now, wall: monotonic and unix seconds.
        """
        for row in rows:
            due = max(now, self._due.get(worker.id, now))
            if due > now + 1.0 or len(self._waiting) >= MOST_WAITING:
                self.dropped += 1
                continue
            self._due[worker.id] = due + members / MOST_ROWS_S
            self._waiting.append(_encoded(worker, row, wall - row.ago_s))
        if len(self._due) > 2 * members:  # most are of workers that are gone
            self._due = {name: due for name, due in self._due.items() if due > now}

    def close(self) -> None:
        """Write what waits, and end; a disk that hangs is not waited for longer than ``END_S``."""
        self._closed.set()
        self._thread.join(END_S)
        if self._thread.is_alive():
            logger.warning("%s has not answered for %g s: the rows end there", self._path, END_S)

    # --- the writer's thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed.wait(WRITE_EVERY_S):
            self._write()
        self._write()

    def _write(self) -> None:
        lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not lines:
            return
        try:
            with self._path.open("ab") as file:
                if file.tell() and not _ends_with_a_line(self._path):
                    file.write(b"\n")  # a kill, or a full disk, left half a line
                file.write(b"".join(lines))
                long = file.tell() >= self._most_bytes
            if long:
                os.replace(self._path, self._before)
        except OSError as exc:
            self.dropped += len(lines)
            if not self._failing:
                self._failing = True
                logger.warning(
                    "cannot write %s (%s): the job goes on, and its rows are dropped until it can be written",
                    *(self._path, exc.strerror or exc),
                )
            return
        if self._failing:
            self._failing = False
            logger.warning("%s is written again; %d rows were dropped", self._path, self.dropped)


def _encoded(worker: Register, row: StageRow, t: float) -> bytes:
    line = _Line(
        t=round(t, 6),
        worker=worker.id,
        device=worker.device_type,
        group=worker.group,
        batch=row.samples,
        rows=row.rows,
        tasks=row.tasks,
        bytes_in=row.bytes_in,
        bytes_out=row.bytes_out,
        stages=dict(zip(STAGES, row.stages, strict=True)),
        total_s=row.total_s,
        wait_s=dict(zip(STAGES, row.waits, strict=True)),
    )
    return msgspec.json.encode(line) + b"\n"


def _ends_with_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
