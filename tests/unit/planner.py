"""Workers and stage rows of a stated pace, for tests of plans."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any

from edldist_launch.planner.line import Line
from edldist_launch.planner.pace import WorkerPace
from edldist_launch.planner.rows import STAGES

__all__ = ["pace", "row", "rows"]

IO_S = 0.0002


def pace(base_s: float, row_s: float, device: str = "cpu", overlaps: bool = False) -> WorkerPace:
    """Passes that take so long; each message takes 0.2 ms to read, and to send."""
    lines = dict.fromkeys(STAGES, Line(0.0, 0.0, 0.0))
    lines |= {"receive": Line(0.0, IO_S, 0.0), "send": Line(0.0, IO_S, 0.0)}
    lines["forward"] = Line(0.0, base_s, row_s)
    return WorkerPace(device, lines, sizes=(1, 1024), row_bytes=1 << 20, overlaps=overlaps)


def row(batch: int, forward_s: float, **fields: Any) -> dict[str, Any]:
    """A stage row as workers write them."""
    stages = dict.fromkeys(STAGES, 0.0001) | {"forward": forward_s}
    waits: Mapping[str, float] = dict.fromkeys(STAGES, 0.0)
    return {
        "t": 1.0,
        "worker": "teacher-0",
        "device": "cpu",
        "group": "teacher",
        "batch": batch,
        "rows": batch,
        "tasks": 1,
        "bytes_in": 256 * batch,
        "bytes_out": 40 * batch,
        "stages": stages,
        "total_s": sum(stages.values()),
        "wait_s": waits,
    } | fields


def rows(
    sizes: tuple[int, ...], base_s: float, row_s: float, each: int = 20, noise: float = 0.02, **fields: Any
) -> list[bytes]:
    """Lines of a file: passes of some sizes, each so often, some per cent longer than they are to be."""
    rng = random.Random(1)
    return [
        json.dumps(row(size, (base_s + row_s * size) * (1 + noise * rng.random()), **fields)).encode()
        for size in sizes
        for _ in range(each)
    ]
