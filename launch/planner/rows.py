"""The stage rows of a run (``stages.jsonl``): how long a task was where in its worker, one a line. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

__all__ = ["STAGES", "Rows", "StageRow", "parse_rows"]

STAGES = ("receive", "decode", "batch", "copy_in", "forward", "encode", "copy_out", "send")
"""Those of a task in its worker, in order."""
MOST_NAMED = 3
LONGEST_S = 1e6
MOST_SAMPLES = 1 << 31

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
_Count = Annotated[int, msgspec.Meta(ge=1, le=MOST_SAMPLES)]
_Bytes = Annotated[int, msgspec.Meta(ge=0, le=1 << 60)]
_Seconds = Annotated[float, msgspec.Meta(ge=0, le=LONGEST_S)]


class StageRow(msgspec.Struct, frozen=True):
    """One task of a run, as its worker timed it.

    Attributes:
        t: unix seconds.
        worker, device, group: who labelled it, the type of what that computes on, and the teacher's name.
        batch, tasks: of its forward pass, samples and tasks.
        bytes_in, bytes_out: of the inputs and the labels of that pass.
        stages: seconds in each.
        total_s: from its arrival at the worker until its labels left.
        wait_s: seconds in the queue before each stage.
        rows: of that pass: its samples, or the tokens of its sequences. Batch sizes and pulls count these.
    """

    t: float
    worker: _Name
    device: _Name
    group: _Name
    batch: _Count
    tasks: _Count
    bytes_in: _Bytes
    bytes_out: _Bytes
    stages: dict[str, _Seconds]
    total_s: _Seconds
    wait_s: dict[str, _Seconds] = {}
    rows: _Bytes = 0

    @property
    def size(self) -> int:
        """Rows of the pass."""
        return self.rows or self.batch


@dataclass(frozen=True)
class Rows:
    """What could be read.

    Attributes:
        rows: in the order of the file.
        damaged: how many lines are none; ``words`` says of the first ones what is wrong with them.
    """

    rows: list[StageRow] = field(default_factory=list)
    damaged: int = 0
    words: list[str] = field(default_factory=list)


_decode = msgspec.json.Decoder(StageRow).decode


def parse_rows(lines: Iterable[bytes]) -> Rows:
    """Read the lines of a file; what is no stage row is left out, and counted."""
    rows: list[StageRow] = []
    words: list[str] = []
    damaged = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = _decode(line)
            if "forward" not in row.stages or not math.isfinite(row.t):
                raise msgspec.ValidationError("a row of no forward pass")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            damaged += 1
            if len(words) < MOST_NAMED:
                words.append(f"line {number}: {exc}")
            continue
        rows.append(row)
    return Rows(rows, damaged, words)
