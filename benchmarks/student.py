"""A rank in a process of its own whose loop only takes batches.

``python -m edldist_benchmarks.student ADDRESS BOOK CASE [STEP_S]`` notes in BOOK how far it is, some twenty
times a second, by the clock that all processes of a machine share. ``Book`` reads that from elsewhere. Its
loop takes STEP_S for each batch.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import NamedTuple

__all__ = ["Book", "Progress"]

NOTE_S = 0.05


class Progress(NamedTuple):
    """``batches`` delivered by ``t`` (monotonic seconds), served by ``teachers`` workers.

    ``label_bytes`` of tensors came through sockets by then; ``degraded`` samples had cheaper labels.
    """

    t: float
    batches: int
    teachers: int
    label_bytes: int = 0
    degraded: int = 0


class Book:
    """The progress of one rank, read from another process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Progress]:
        if not self.path.exists():
            return []
        lines = self.path.read_text().split("\n")[:-1]  # what follows the last line break may be half a line
        return [Progress(*json.loads(line)) for line in lines]

    def served_by(self, teachers: int) -> bool:
        """Whether the loop runs, with this many workers."""
        notes = self.read()
        return bool(notes) and notes[-1].batches > 0 and notes[-1].teachers == teachers

    def rate(self, since: float, until: float) -> float:
        """Batches a second between two moments, from the last note before each.

        Raises:
            ValueError: the loop stood still in between.
        """
        first, last = self._between(since, until)
        return (last.batches - first.batches) / (last.t - first.t)

    def bytes_each(self, since: float, until: float) -> float:
        """Bytes of labels that came for each batch between two moments.

        Raises:
            ValueError: the loop stood still in between.
        """
        first, last = self._between(since, until)
        return (last.label_bytes - first.label_bytes) / (last.batches - first.batches)

    def _between(self, since: float, until: float) -> tuple[Progress, Progress]:
        notes = self.read()
        first = next((note for note in reversed(notes) if note.t <= since), None)
        last = next((note for note in reversed(notes) if note.t <= until), None)
        if first is None or last is None or last.t <= first.t:
            raise ValueError(f"no batch was noted in {self.path.name} for {until - since:.1f} s")
        return first, last


def _run(address: str, book: Path, case_name: str, step_s: float = 0.0) -> None:
    import edldist
    from edldist_benchmarks.label_path import CASES

    case = CASES[case_name]
    loader = edldist.DistillLoader(case.batches(), coordinator=address, high_watermark=case.high_watermark)
    with book.open("w") as out, loader:
        note_at = 0.0
        for count, _ in enumerate(loader, start=1):
            now = time.monotonic()
            if now >= note_at:
                note_at = now + NOTE_S
                stats = loader.stats()
                came = stats["received_socket_bytes"], stats.get("degraded", 0)
                print(json.dumps([now, count, stats["teachers"], *came]), file=out, flush=True)
            if step_s:
                time.sleep(step_s)


if __name__ == "__main__":
    _run(sys.argv[1], Path(sys.argv[2]), sys.argv[3], *map(float, sys.argv[4:5]))
