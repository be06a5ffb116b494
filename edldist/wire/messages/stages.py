"""What members tell of the stages of a label's way: how long they took in all, and task by task of some."""

from __future__ import annotations

from typing import Annotated

import msgspec

from edldist.wire.messages.fields import Count, MessagePart, Name

__all__ = ["MOST_ROWS", "STAGES", "StageRow", "StageTimes"]

STAGES = ("receive", "decode", "batch", "copy_in", "forward", "encode", "copy_out", "send")
"""Of a task in a teacher worker, in their order; docs/pipeline.md says what belongs to each."""
MOST_ROWS = 8
"""Of one heartbeat."""

_Duration = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
_Durations = Annotated[list[_Duration], msgspec.Meta(min_length=len(STAGES), max_length=len(STAGES))]
_Buckets = Annotated[list[Count], msgspec.Meta(max_length=64)]
_Sum = Annotated[float, msgspec.Meta(ge=0, le=1e12)]


class StageTimes(MessagePart, frozen=True, array_like=True):
    """How long one stage of a label's way took in a process so far (``edldist.observe.stages``).

    Attributes:
        stage: its name.
        sum_s: of all durations, seconds.
        counts: how many durations fell into each bucket.
        waited_s: of all waits for the stage to begin, seconds; 0 where nobody measures them.
        waits: how many of these fell into each bucket; empty where nobody measures them.
    """

    stage: Name
    sum_s: _Sum
    counts: _Buckets
    waited_s: _Sum = 0.0
    waits: _Buckets = []


class StageRow(MessagePart, frozen=True, array_like=True):
    """The way of one task through a teacher worker, from a message to a message.

    Attributes:
        ago_s: how long before this was told its labels had left, seconds.
        samples, rows, tasks: of the pass that it was in; a row is a sample, or a token of a sequence.
        bytes_in, bytes_out: of the inputs and labels of that pass.
        stages: seconds in each of ``STAGES``.
        waits: seconds before each of them, in its queue.
        total_s: from when the worker looked for messages until the labels were in the socket's hands.
    """

    ago_s: _Duration
    samples: Count
    rows: Count
    tasks: Count
    bytes_in: Count
    bytes_out: Count
    stages: _Durations
    waits: _Durations
    total_s: _Duration
