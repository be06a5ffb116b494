"""The ways of some tasks through a worker, timed stage by stage. Pure: readings of a clock in, figures out.

A message that comes ``TIMED_EVERY_S`` or more after the last one that was timed gets a ``Passage``. It goes
with the first of the message's tasks that a pass takes, from thread to thread as the task does, and each
stage writes down when it began and ended. When the labels have left it is added up. All other tasks cost
their stages one look at an attribute::

    I/O thread      message -- receive --> held task
    compute thread            (decode's queue) -- decode -- batch -- copy_in -- forward -- encode -- copy_out
    I/O thread                                                               (send's queue) -- send --> socket

What lies between the end of a stage and the beginning of the next is the wait in the latter's queue. So all
stages and waits of a task add up to its time in the worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from edldist.observe.stages import StageClock
from edldist.wire.messages import MOST_ROWS, STAGES, StageRow

__all__ = ["Passage", "Passages"]

TIMED_EVERY_S = 0.02
"""A worker that answers a hundred thousand tasks a second times fifty of them."""
ROW_EVERY_S = 0.25
"""Of these, so many are told one by one."""
_NEVER = -1.0
_AT = {stage: place for place, stage in enumerate(STAGES)}


class Passage:
    """The way of one task. Owned by whoever has the task.

    Args:
        looked_at: when the I/O thread began to look for messages, monotonic seconds.

    Attributes:
        taken: a pass has taken its task.
        samples, rows, tasks, bytes_in, bytes_out: see ``StageRow``; of the pass.
    """

    __slots__ = (
        *("_began", "_ended", "_looked_at"),
        *("bytes_in", "bytes_out", "rows", "samples", "taken", "tasks"),
    )

    def __init__(self, looked_at: float) -> None:
        self._looked_at = looked_at
        self._began = [_NEVER] * len(STAGES)
        self._ended = [_NEVER] * len(STAGES)
        self.taken = False
        self.samples = self.rows = self.tasks = self.bytes_in = self.bytes_out = 0

    def began(self, stage: str, at: float) -> None:
        """A stage begins; one that is done again begins anew."""
        self._began[_AT[stage]] = at

    def ended(self, stage: str, at: float) -> None:
        """A stage is over."""
        self._ended[_AT[stage]] = at

    def durations(self) -> tuple[list[float], list[float], float]:
        """Seconds in each stage, seconds before each, and seconds in all.

        A stage that nobody noted took no time, and a clock of a device that runs a little beside the host's
        moves none before its predecessor.
        """
        stages, waits, at = [], [], self._looked_at
        for began, ended in zip(self._began, self._ended, strict=True):
            began = max(began, at) if ended > _NEVER else at
            ended = max(began, ended)
            waits.append(began - at)
            stages.append(ended - began)
            at = ended
        return stages, waits, at - self._looked_at

    @property
    def ended_at(self) -> float:
        """When its labels had left, monotonic seconds."""
        return self._ended[-1]


class Passages:
    """Decides which tasks are timed, and adds up what they took. Owned by the I/O thread.

    Attributes:
        stages: by name, in their order.
        due_at: a message that comes then or later is timed, monotonic seconds.
    """

    def __init__(self) -> None:
        self.stages = {stage: StageClock() for stage in STAGES}
        self.due_at = float("-inf")
        self._row_at = float("-inf")
        # Invariant: the latest ways that are to be told one by one, at most as many as a heartbeat takes.
        self._rows: deque[Passage] = deque(maxlen=MOST_ROWS)

    def begin(self, looked_at: float, began: float) -> Passage:
        """For a message that is about to be read; it is timed if ``took`` is called."""
        passage = Passage(looked_at)
        passage.began("receive", began)
        return passage

    def took(self, passage: Passage, at: float) -> None:
        """The message brought tasks, which are held now."""
        passage.ended("receive", at)
        self.due_at = at + TIMED_EVERY_S

    def left(self, passage: Passage) -> None:
        """Its labels are in the socket's hands."""
        stages, waits, _ = passage.durations()
        for clock, seconds, waited in zip(self.stages.values(), stages, waits, strict=True):
            clock.took(seconds)
            clock.waited(waited)
        if passage.ended_at >= self._row_at:
            self._row_at = passage.ended_at + ROW_EVERY_S
            self._rows.append(passage)

    def rows(self, now: float) -> list[StageRow]:
        """The ways of single tasks that were not told yet."""
        told = [_row(passage, now) for passage in self._rows]
        self._rows.clear()
        return told


def _row(passage: Passage, now: float) -> StageRow:
    stages, waits, total_s = passage.durations()
    return StageRow(
        ago_s=max(0.0, now - passage.ended_at),
        samples=passage.samples,
        rows=passage.rows,
        tasks=passage.tasks,
        bytes_in=passage.bytes_in,
        bytes_out=passage.bytes_out,
        stages=_rounded(stages),
        waits=_rounded(waits),
        total_s=round(total_s, 9),
    )


def _rounded(seconds: Sequence[float]) -> list[float]:
    return [round(each, 9) for each in seconds]
