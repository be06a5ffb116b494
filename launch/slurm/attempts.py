"""What the processes of a job wrote, attempt by attempt: ``logs/PROCESS/N/log``."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from edldist_launch.contract.log_order import in_order, timed
from edldist_launch.slurm.layout import Layout

__all__ = ["Attempts"]

_LOOK_S = 0.5
_MOST_BYTES = 1 << 20


class Attempts:
    """Reads the logs of one job."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def count(self, process: str) -> int:
        """How often a process was started."""
        return len(self._folders(process))

    def output(self, process: str, lines: int = 40) -> str:
        """The last lines of its latest attempt."""
        for folder in reversed(self._folders(process)):
            with contextlib.suppress(OSError):
                text = (folder / "log").read_text(errors="replace")
                return "\n".join(text.splitlines()[-lines:])
        return ""

    def follow(
        self,
        processes: Callable[[], Collection[str]],
        ended: Callable[[], bool],
        wait: Callable[[float], None] = time.sleep,
    ) -> Iterator[str]:
        """Lines of processes as they are written, each begun by its process's name, until ``ended``.

        What is there at once is in its order by time (``log_order``).

        Args:
            processes: whose logs; asked again and again, since some come later.
            ended: whether nothing will be added any more.
        """
        read: dict[Path, int] = {}
        latest: dict[str, float] = {}  # time of a process's last line
        while True:
            over = ended()
            yield from in_order(
                (process, self._timed(process, read, latest, over)) for process in sorted(processes())
            )
            if over:
                return
            wait(_LOOK_S)

    def _timed(
        self, process: str, read: dict[Path, int], latest: dict[str, float], over: bool
    ) -> Iterator[tuple[float, str]]:
        """Lines of one process that were not read yet, attempt by attempt."""
        for folder in self._folders(process):
            lines = ((None, line) for line in self._new_lines(folder / "log", read, over))
            for t, line in timed(lines, latest.get(process, -math.inf)):
                latest[process] = t
                yield t, line

    def _new_lines(self, path: Path, read: dict[Path, int], over: bool) -> Iterator[str]:
        """Whole lines that were not read yet; the rest too, once nothing follows."""
        with contextlib.suppress(OSError), path.open("rb") as log:
            while True:
                log.seek(read.get(path, 0))
                piece = log.read(_MOST_BYTES)
                end = len(piece) if over and len(piece) < _MOST_BYTES else piece.rfind(b"\n") + 1
                if not end and len(piece) == _MOST_BYTES:
                    end = len(piece)  # one line without end
                if not end:
                    return
                read[path] = read.get(path, 0) + end
                yield from piece[:end].decode(errors="replace").splitlines()

    def _folders(self, process: str) -> list[Path]:
        with contextlib.suppress(OSError):
            found = [path for path in self._layout.log_folder(process).iterdir() if path.name.isdecimal()]
            return sorted(found, key=lambda path: int(path.name))
        return []
