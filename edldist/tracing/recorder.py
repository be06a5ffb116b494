"""The tapes of one process, and the names that their records mention. Pure but for the name of the clock."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from edldist.tracing.tape import Tape

__all__ = ["Recorder", "Recording", "clock_name"]

_MOST_NAMES, _LONGEST_NAME = 1 << 10, 100
"""So few, and so short, that all fit into a message beside records."""


class Recording(NamedTuple):
    """What one tape has recorded: the name of its thread, the records as bytes, and how many were lost."""

    thread: str
    records: bytes
    lost: int


class Recorder:
    """What a process records while somebody asks it to.

    Owned by the process's I/O thread, which begins and ends it; each tape by its own writer.

    Args:
        now: monotonic seconds.
        threads: names of the tapes.

    Attributes:
        on: whether it records.
    """

    def __init__(self, now: Callable[[], float], threads: Sequence[str]) -> None:
        self._tapes = {name: Tape(now) for name in threads}
        self._numbers = itertools.count(1)
        self._names: dict[str, int] = {}
        self.on = False

    def __getitem__(self, thread: str) -> Tape:
        return self._tapes[thread]

    def __len__(self) -> int:
        return len(self._tapes)

    def number(self, name: str) -> int:
        """What a record calls a peer. For any thread; 0 for who comes when there are too many."""
        known = self._names.get(name)
        if known is None:
            if len(self._names) >= _MOST_NAMES:
                return 0
            known = self._names.setdefault(name, next(self._numbers))
        return known

    @property
    def names(self) -> dict[int, str]:
        """The peers, by what records call them. A thread that still writes may name another meanwhile."""
        return {number: name[:_LONGEST_NAME] for name, number in self._names.copy().items()}

    def begin(self, records: int, sample: int) -> None:
        """Record from now on.

        Args:
            records: the most of each thread; later ones take the place of the oldest.
            sample: of tasks, record each one whose lease this divides.
        """
        self._names.clear()
        self.on = True
        for tape in self._tapes.values():
            tape.begin(records, sample)

    def end(self) -> list[Recording]:
        """Record no more, and forget what was recorded."""
        self.on = False
        return [Recording(name, *tape.end()) for name, tape in self._tapes.items()]


def clock_name() -> str:
    """What processes have in common whose monotonic clocks are one: this start of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return platform.node()
