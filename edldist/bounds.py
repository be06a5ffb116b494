"""The most that a job may ask for, wherever it does: in its file, as an option, or as a variable.

Far above what is of use, and far below what takes a machine down before it can refuse. Whether one machine
has room for what a job starts on it is the launcher's question.
"""

from __future__ import annotations

import re

__all__ = [
    "LONGEST_JOB_NAME",
    "LONGEST_TTL_S",
    "LONGEST_WAIT_S",
    "MOST",
    "MOST_DEGRADATIONS",
    "MOST_NODES",
    "MOST_PRIORITY",
    "MOST_RANKS_A_NODE",
    "MOST_THREADS",
    "MOST_WEIGHT",
    "MOST_WORKERS",
    "node_range",
]

MOST_WORKERS = 10_000
"""Teacher workers of one group."""
MOST_NODES = 10_000
MOST_RANKS_A_NODE = 1_024
MOST_THREADS = 1_024
"""Of one process."""
MOST_WEIGHT = 1_000
"""Of a job among those that share workers."""
MOST_DEGRADATIONS = 8
"""That a job allows, one after the other."""
MOST_PRIORITY = 100
"""Of such a job; the least is as far below 0."""
MOST = 1_000_000_000
"""Of whatever takes no room by its number: samples, steps, restarts, checkpoints."""
LONGEST_JOB_NAME = 100
"""Characters."""
LONGEST_TTL_S = 3_600.0
LONGEST_WAIT_S = 604_800.0
"""A week: how long anybody waits for anything that may never come."""


def node_range(nnodes: str) -> tuple[int, int]:
    """The least and the most nodes of ``"2"`` or ``"1:4"``.

    Raises:
        ValueError: the text has another form, or its bounds make no sense.
    """
    match = re.fullmatch(r"(\d{1,6})(?::(\d{1,6}))?", nnodes, re.ASCII)
    if match is None:
        raise ValueError('write a number of nodes, as in "1", or a range, as in "1:4"')
    least = int(match[1])
    most = int(match[2]) if match[2] else least
    if not 1 <= least <= most <= MOST_NODES:
        raise ValueError(f"the bounds must satisfy 1 <= MIN <= MAX <= {MOST_NODES}")
    return least, most
