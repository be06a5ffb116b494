"""What members tell each other of jobs that share a fleet of teacher workers."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edldist.bounds import MOST_DEGRADATIONS, MOST_PRIORITY, MOST_WEIGHT
from edldist.wire.messages.fields import MessagePart, Name, Seconds, Text

__all__ = ["Degradation", "JobShare", "Shed"]


class Degradation(MessagePart, frozen=True, array_like=True):
    """Labels that a job takes where its fleet is overloaded, instead of those that come before in its list.

    Attributes:
        teacher: the group that makes them.
        codec: the smaller codec in which it sends them, as it is written; empty: the group's own.
    """

    teacher: Name
    codec: Name = ""

    def __str__(self) -> str:
        return f"teacher {self.teacher}" + (f" as {self.codec}" if self.codec else "")


class JobShare(MessagePart, frozen=True, array_like=True):
    """Which job a student is of, and what that job may have of the workers that it shares with others.

    Attributes:
        job: what its ranks have in common: the job's name, else the name of their process group; empty: the
            student is a job of its own.
        weight: its part of the workers, relative to the weights of other jobs; all ranks of a job share it.
            None: nobody said one. It counts as 1 beside jobs that have one.
        priority: a job gets nothing of a worker while one of a higher priority has something for that worker.
    """

    job: Name = ""
    weight: Annotated[int, msgspec.Meta(ge=1, le=MOST_WEIGHT)] | None = None
    priority: Annotated[int, msgspec.Meta(ge=-MOST_PRIORITY, le=MOST_PRIORITY)] = 0

    @property
    def named(self) -> bool:
        """Whether somebody said what the job may have."""
        return self.weight is not None or self.priority != 0


class Shed(MessagePart, frozen=True, tag="shed"):
    """The coordinator tells a student what to do about an overloaded fleet (docs/sharing.md).

    Attributes:
        step: 0: nothing; 1: less is read ahead; 2: what is stored comes first; 3: jobs are degraded; 4: jobs
            of a lower priority wait. Each with all before it.
        retry_after_s: all of this holds for so long, unless it is said again.
        degrade: how many of the degradations that its job allows apply to what is read from now on.
        waits: why it is to read nothing new; empty if it may.
    """

    step: Annotated[int, msgspec.Meta(ge=0, le=4)]
    retry_after_s: Seconds
    degrade: Annotated[int, msgspec.Meta(ge=0, le=MOST_DEGRADATIONS)] = 0
    waits: Text = ""
