"""The thread of a store that writes labels to files, and keeps the folder within its bound."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from edldist.store.room import Room
from edldist.store.sample_key import Keys
from edldist.store.segment import Segment

if TYPE_CHECKING:
    from edldist.store.shelf import Shelf

__all__ = ["Keeper"]

logger = logging.getLogger(__name__)

LOOK_S = 1.0
"""Between two looks at what other processes have written."""
WRITE_AFTER_S = 30.0
"""How long labels are in memory alone, at most: so much work a kill -9 costs."""
MARK_S = 60.0
_HEADER_BYTES = 64 << 10
"""More than a header takes, but for its digests: 1/8192 of the file."""
RETRY_S = 60.0
"""After a disk that was full or failed, before it is tried again."""


class Keeper:
    """Writes what shelves hand over, in order, in one thread that starts with the first of it.

    What waits for it is bounded by the memory of the shelves. Labels of a disk that does not take them are
    dropped, which is said once and counted, and it is tried again later.

    Args:
        room: keeps the store within its bound; None where nothing is to go.
        read_only: nothing is written.

    Attributes:
        trouble: why labels do not get to files; empty if they do.
    """

    def __init__(self, room: Room | None, read_only: bool) -> None:
        self.trouble = "the store was opened read-only" if read_only else ""
        self._read_only = read_only
        self._room = room
        self._shelves: list[Shelf] = []
        self._waiting: deque[tuple[Shelf, Segment | Keys]] = deque()
        self._changed = threading.Condition()
        self._unsaved: dict[int, int] = {}
        self._written: dict[int, int] = {}
        self._dropped: dict[int, int] = {}
        self._told: dict[int, int] = {}
        self._thread: threading.Thread | None = None
        self._stop = False
        self._retry_at = self._mark_at = 0.0
        self._seal_at = time.monotonic() + WRITE_AFTER_S

    def watch(self, shelf: Shelf) -> None:
        """Look after a shelf from now on."""
        with self._changed:
            self._shelves.append(shelf)
            self._start()

    def save(self, shelf: Shelf, segments: list[Segment]) -> None:
        """Write segments to files, in the thread; once it has ended they are dropped."""
        with self._changed:
            if self._stop:
                self._count(self._dropped, shelf, sum(segment.samples for segment in segments))
                for segment in segments:
                    shelf.saved(segment)
                return
            self._start()
            self._waiting.extend((shelf, segment) for segment in segments)
            self._unsaved[id(shelf)] = self._unsaved.get(id(shelf), 0) + len(segments)
            self._changed.notify_all()

    def withdraw(self, shelf: Shelf, keys: Keys) -> None:
        """Take samples out of a shelf's files, in the thread, behind what is to be written before."""
        with self._changed:
            if self._stop or self._read_only:
                return
            self._start()
            self._waiting.append((shelf, keys))
            self._unsaved[id(shelf)] = self._unsaved.get(id(shelf), 0) + 1
            self._changed.notify_all()

    def wait(self, shelf: Shelf, timeout_s: float | None = None) -> bool:
        """Wait until a shelf's segments are written; whether all since the last wait got to files.

        The store's own thread waits for nothing: it may be the one in which a forgotten loader is found, and
        closed.
        """
        with self._changed:
            own = threading.current_thread() is self._thread
            done = self._changed.wait_for(lambda: not self._unsaved.get(id(shelf)), 0 if own else timeout_s)
            dropped = self._dropped.get(id(shelf), 0)
            before, self._told[id(shelf)] = self._told.get(id(shelf), 0), dropped
            return done and not self._read_only and dropped == before

    def made_room(self, shelf: Shelf) -> bool:
        """Wait until one more of a shelf's segments is written; False if none can be."""
        with self._changed:
            waiting = self._unsaved.get(id(shelf), 0)
            if not waiting or self.trouble:
                return False
            self._changed.wait_for(lambda: self._unsaved.get(id(shelf), 0) < waiting)
            return not self.trouble

    def written(self, shelf: Shelf) -> int:
        """Samples that were written to files."""
        return self._written.get(id(shelf), 0)

    def dropped(self, shelf: Shelf) -> int:
        """Samples that were not, for a disk that did not take them."""
        return self._dropped.get(id(shelf), 0)

    def fail(self, trouble: str) -> None:
        """The disk does not take labels: said once, and it is tried again later."""
        if not self.trouble:
            logger.warning("%s. The job goes on without keeping labels there, and tries again", trouble)
        self.trouble = trouble
        self._retry_at = time.monotonic() + RETRY_S

    def close(self) -> None:
        """Write what waits, and end the thread; without waiting for it in that thread itself."""
        with self._changed:
            self._stop = True
            self._changed.notify_all()
            thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _start(self) -> None:
        if self._thread is None and not self._stop:
            self._thread = threading.Thread(target=self._run, name="edldist-store", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stop, LOOK_S)
                if self._stop and not self._waiting:
                    return
                next_one = self._waiting.popleft() if self._waiting else None
            if next_one is not None:
                shelf, what = next_one
                if isinstance(what, Segment):
                    self._write(shelf, what)
                else:
                    self._rewrite(shelf, what)
            self._look_around()

    def _rewrite(self, shelf: Shelf, keys: Keys) -> None:
        if (files := shelf.files) is not None:
            try:
                files.rewrite(keys, self._make_room)
            except Exception as exc:  # whatever it is: the job goes on, and finds none of them
                self.fail(f"labels of {files.place.where} cannot be withdrawn: {exc}")
        with self._changed:
            self._unsaved[id(shelf)] -= 1
            self._changed.notify_all()

    def _write(self, shelf: Shelf, segment: Segment) -> None:
        files = shelf.files
        written = False
        if files is not None and not self._read_only and time.monotonic() >= self._retry_at:
            try:
                self._make_room(segment.nbytes)
                if (kept := segment.for_a_file()).samples:
                    files.add(kept)
                written, self.trouble = True, ""
            except Exception as exc:  # whatever it is: the job goes on without these labels
                self.fail(f"{files.place.where} does not take labels: {exc}")
        shelf.saved(segment)
        with self._changed:
            self._count(self._written if written else self._dropped, shelf, segment.samples)
            self._unsaved[id(shelf)] -= 1
            self._changed.notify_all()

    def _make_room(self, nbytes: int) -> None:
        if self._room is not None:
            self._room.make(nbytes + nbytes // 4096 + _HEADER_BYTES)

    @staticmethod
    def _count(counts: dict[int, int], shelf: Shelf, samples: int) -> None:
        counts[id(shelf)] = counts.get(id(shelf), 0) + samples

    def _look_around(self) -> None:
        """What has to be done now and then, and fails nobody."""
        now = time.monotonic()
        if now >= self._seal_at:
            self._seal_at = now + WRITE_AFTER_S
            for shelf in self._shelves:
                if segments := shelf.seal():
                    self.save(shelf, segments)
        marking = now >= self._mark_at and not self._read_only
        if marking:
            self._mark_at = now + MARK_S
        for shelf in self._shelves:
            if (files := shelf.files) is None:
                continue
            try:
                files.refresh(now)
                if not self._read_only:
                    files.join_small(self._make_room)
                    files.set_aside_broken()
                if marking:
                    files.mark_used()
            except Exception as exc:
                self.fail(f"{files.place.where} cannot be looked after: {exc}")
