"""The ways of some tasks through a worker, timed stage by stage. Pure: readings of a clock in, figures out.

Of the messages that bring tasks one in ``TIMED_EVERY_S`` gets a ``Passage``, or each where they come less
often. It goes with the first of the message's tasks that a pass takes, from thread to thread as the task
does, and each stage writes down when it began and ended. When the labels have left it is added up. All other
tasks cost their stages one look at an attribute.

Messages are drawn by lot, each with the same chance, and are not those that come a fixed time, or any time,
after the last one: such are mostly the first of a burst, which wait for nobody, and their figures would tell
of workers that are faster than they are::

    I/O thread      message -- receive --> held task
    compute thread            (decode's queue) -- decode -- batch -- copy_in -- forward -- encode -- copy_out
    I/O thread                                                               (send's queue) -- send --> socket

What lies between the end of a stage and the beginning of the next is the wait in the latter's queue. So all
stages and waits of a task add up to its time in the worker.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from edldist.observe.stages import StageClock
from edldist.wire.messages import MOST_ROWS, STAGES, StageRow

__all__ = ["Passage", "Passages"]

TIMED_EVERY_S = 0.02
"""A worker that answers a hundred thousand tasks a second times fifty of them."""
ROW_EVERY_S = 0.25
"""Of these, so many are told one by one."""
COUNT_S = 1.0
"""How long messages are counted, to know how many come a second."""
LATE_S = 2.0
"""After so long without one the next message is timed: fewer come than before."""
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

    Args:
        lot: draws them; the same one draws the same ones.

    Attributes:
        stages: by name, in their order.
        skip: so many messages with tasks pass before one is timed.
        late_at: but none that comes then or later, monotonic seconds.
    """

    def __init__(self, lot: random.Random) -> None:
        self.stages = {stage: StageClock() for stage in STAGES}
        self.skip = 0
        self.late_at = float("-inf")
        self._lot = lot
        self._drawn = 0
        self._seen, self._seen_from = 0, float("-inf")
        self._per_s = 0.0  # in the time before that
        # Invariant: drawn from all ways that ended since rows were told, each with the same chance.
        self._rows: list[Passage] = []
        self._ended = 0
        self._told_at = float("-inf")

    def begin(self, looked_at: float, began: float) -> Passage:
        """For a message that is about to be read; it is timed if ``took`` is called."""
        passage = Passage(looked_at)
        passage.began("receive", began)
        return passage

    def passed(self) -> None:
        """A message brought tasks, and is not timed."""
        self.skip -= 1

    def took(self, passage: Passage, at: float) -> None:
        """The message brought tasks, which are held now."""
        passage.ended("receive", at)
        self._seen += self._drawn - self.skip + 1
        between = self._rate(at) * TIMED_EVERY_S
        self.skip = 0
        if between > 1.0:  # of a lot with one chance in so many, the number of blanks
            self.skip = int(math.log(1.0 - self._lot.random()) / math.log1p(-1.0 / between))
        self._drawn, self.late_at = self.skip, at + LATE_S

    def left(self, passage: Passage) -> None:
        """Its labels are in the socket's hands."""
        stages, waits, _ = passage.durations()
        for clock, seconds, waited in zip(self.stages.values(), stages, waits, strict=True):
            clock.took(seconds)
            clock.waited(waited)
        self._ended += 1
        if len(self._rows) < MOST_ROWS:
            self._rows.append(passage)
        elif (place := self._lot.randrange(self._ended)) < MOST_ROWS:
            self._rows[place] = passage

    def rows(self, now: float) -> list[StageRow]:
        """The ways of single tasks of the time since rows were told, by their ends."""
        most = max(1, round(min((now - self._told_at) / ROW_EVERY_S, MOST_ROWS)))
        told = self._lot.sample(self._rows, min(most, len(self._rows)))
        self._rows.clear()
        self._ended, self._told_at = 0, now
        return [_row(passage, now) for passage in sorted(told, key=lambda passage: passage.ended_at)]

    def _rate(self, now: float) -> float:
        """Messages with tasks per second: of now, or of just before, whichever is more."""
        since_s = now - self._seen_from
        if since_s >= COUNT_S:
            self._per_s = self._seen / since_s
            self._seen, self._seen_from = 0, now
        if not self._per_s:  # nothing is known yet
            return self._seen / max(since_s, TIMED_EVERY_S)
        return max(self._per_s, self._seen / COUNT_S)


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
