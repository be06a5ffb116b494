"""The record of a job that nobody's ``edldist run`` watches: its coordinator writes it down.

Workers and students that people start by hand, on one machine or on many, all report to one coordinator.
With an output folder it leaves what ``edldist run`` leaves: events as they happen, the result whenever the
students have gone, and the curves at its end. A coordinator may be replaced while the students train on: its
successor goes on with what it has kept of the figures.
"""

from __future__ import annotations

import io
import logging
import queue
import shlex
import threading
from types import TracebackType

from edldist.clock import Clock, SystemClock
from edldist.wire.messages import Status
from edldist_launch.record.folder import RecordFolder
from edldist_launch.track.feed import TrackerFeed
from edldist_launch.view.console import PlainConsole
from edldist_launch.view.ending import Ending
from edldist_launch.view.observers import Observers

__all__ = ["Scribe"]

logger = logging.getLogger(__name__)

END_S = 10.0
"""How long the end waits for what is still to be written."""
MOST_WAITING = 600
"""States of the job that wait for a slow disk: some minutes of them."""


class _Nowhere(io.StringIO):
    """Where the lines go that a person would see: a coordinator's terminal has its log."""

    def write(self, text: str) -> int:
        return len(text)


class Scribe:
    """Writes down what it is told, in a thread of its own; a context manager.

    The coordinator only hands over (``tell``), so that a disk that hangs costs it nothing but ``END_S`` at
    the end, and what it was told since then. What is told after the end of the ``with`` is lost.

    Args:
        folder: where the record goes.
        job: the job's name; None for that of the folder.
        clock: tells the time.
        submission: of the job; figures that were kept of another one are not gone on with.
        nodes_tell: whether the job has nodes, which say how they end (``ending``).
        trackers: where figures go beside the record; None for nowhere.
    """

    def __init__(
        self,
        folder: RecordFolder,
        clock: Clock | None = None,
        job: str | None = None,
        submission: str = "",
        nodes_tell: bool = False,
        trackers: TrackerFeed | None = None,
    ) -> None:
        self._folder = folder
        self._clock = clock or SystemClock()
        nowhere = PlainConsole(file=_Nowhere())
        self._trackers = trackers
        self._observers = Observers(
            job or folder.path.name, folder, nowhere, 0, self._clock, trackers=trackers
        )
        self._told: queue.SimpleQueue[Status | None] = queue.SimpleQueue()
        self._submission = submission
        self._ending = Ending(nodes_tell)
        self._began: float | None = None
        self._behind = False  # said once
        self._thread = threading.Thread(target=self._write, name="edldist-scribe", daemon=True)

    def __enter__(self) -> Scribe:
        logger.info("events.jsonl, result.json, report.html and curves.png go to %s", self._folder.path)
        for words in () if self._trackers is None else self._trackers.words():
            logger.info("%s", words)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._told.put(None)
        self._thread.join(END_S)
        if self._thread.is_alive():
            logger.warning(
                "the record in %s is not written after %g s, and ends where it is: a disk that hangs, or a "
                "busy machine. edldist report %s makes its report.html",
                *(self._folder.path, END_S, shlex.quote(str(self._folder.path))),
            )

    def tell(self, status: Status) -> None:
        """The state of the job, and what happened since the last time; for any thread, never waits."""
        if self._told.qsize() < MOST_WAITING:
            self._told.put(status)
        elif not self._behind:
            self._behind = True
            logger.warning("%s does not keep up: what happens meanwhile is left out", self._folder.path)

    def _write(self) -> None:
        self._observers.take_over(self._submission)
        self._observers.environment()
        while (status := self._told.get()) is not None:
            self._observers.take(status, stopping=False)
            self._note(status)
        if self._began is None:
            return
        if self._ending.students or self._ending.word == "interrupted":
            self._observers.leave_off(self._trained_s())
        else:
            self._observers.students_done()
            self._observers.finish(self._ending.word, self._ending.reason, self._trained_s())

    def _note(self, status: Status) -> None:
        """Write a result whenever the last student has gone: a coordinator may outlive many jobs."""
        before = self._ending.students
        ended = self._ending.see(status)
        if self._ending.begun and self._began is None:
            self._began = self._clock.monotonic()
        if ended:
            if self._ending.word == "interrupted":
                self._observers.students_back()  # others may come
            else:
                self._observers.students_done()
            self._observers.result(self._ending.word, self._trained_s(), self._ending.reason)
        elif self._ending.students and not before:
            self._observers.students_back()
            self._folder.forget_result()  # whoever asks is to hear of those that train now

    def _trained_s(self) -> float:
        return 0.0 if self._began is None else self._clock.monotonic() - self._began
