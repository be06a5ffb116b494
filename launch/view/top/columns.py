"""The columns of ``edldist top``: what each shows, how wide, which stay where there is little room. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rich.text import Text

from edldist.observe.states import STYLES
from edldist.wording import duration, rate, share
from edldist_launch.view.console import shown
from edldist_launch.view.top.scene import StudentRow, WorkerRow

__all__ = ["GAP", "STUDENTS", "WORKERS", "Column", "bar", "fitting"]

GAP = 2
"""Blanks between columns."""
_BAR = 8

Row = TypeVar("Row", WorkerRow, StudentRow)


@dataclass(frozen=True)
class Column(Generic[Row]):
    """One column.

    Attributes:
        heading: its name, also of the sorting.
        width: in characters; texts that are longer are cut. 0: as its longest text is, up to ``most``.
        rank: columns of lower ranks stay where there is room for some only.
        cell: what it shows of a row.
        key: what sorts it; None where it does not sort.
        falling: whether the largest come first.
        right: where its texts stand.
    """

    heading: str
    width: int
    rank: int
    cell: Callable[[Row], Text | str]
    key: Callable[[Row], Any] | None = None
    falling: bool = False
    right: bool = True
    most: int = 28

    def width_of(self, rows: Sequence[Row]) -> int:
        """Its width in a table of these rows."""
        if self.width:
            return max(self.width, len(self.heading))
        longest = max((len(str(self.cell(row))) for row in rows), default=0)
        return max(len(self.heading), min(longest, self.most))


def fitting(columns: Sequence[Column[Row]], rows: Sequence[Row], width: int) -> list[tuple[Column[Row], int]]:
    """The columns that have room side by side, in their order, each with its width."""
    widths = {column.heading: column.width_of(rows) for column in columns}
    kept: set[str] = set()
    used = -GAP
    for column in sorted(columns, key=lambda column: column.rank):
        if used + GAP + widths[column.heading] > width and kept:
            break
        kept.add(column.heading)
        used += GAP + widths[column.heading]
    return [(column, widths[column.heading]) for column in columns if column.heading in kept]


def bar(part: float, width: int = _BAR, style: str = "green") -> Text:
    """A bar that is full by ``part`` of its width."""
    eighths = round(max(0.0, min(1.0, part)) * width * 8)
    full, rest = divmod(eighths, 8)
    blocks = "█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")
    return Text.assemble((blocks, style), ("·" * (width - len(blocks)), "dim"))


def _state(row: WorkerRow | StudentRow) -> Text:
    return Text(row.state.word, style=STYLES[row.state.tone])


def _share_cell(row: WorkerRow) -> Text | str:
    if row.share is None:
        return "-"
    return Text.assemble(bar(row.share, 6, "cyan"), f" {row.share:4.0%}")


def _buffer(row: StudentRow) -> Text:
    if not row.high:
        return Text(f"{row.buffered}")
    part = row.buffered / row.high
    style = "green" if part >= 0.5 else "yellow" if row.buffered else "red"
    return Text.assemble(bar(part, _BAR, style), f" {row.buffered}/{row.high}")


def _starved(row: StudentRow) -> Text:
    style = "" if row.starved is None or row.starved < 0.1 else "yellow" if row.starved < 0.5 else "red"
    return Text(share(row.starved), style=style)


def _low(value: float | None) -> float:
    return -1.0 if value is None else value


def _own(row: StudentRow) -> tuple[int, str]:
    return (-1 if row.rank is None else row.rank, row.id)


WORKERS: tuple[Column[WorkerRow], ...] = (
    Column("worker", 0, 0, lambda row: shown(row.id), lambda row: (row.group, row.id), right=False),
    Column("of", 0, 4, lambda row: shown(row.group), lambda row: (row.group, row.id), right=False, most=16),
    Column("device", 0, 2, lambda row: shown(row.device), lambda row: row.device, right=False, most=10),
    Column("state", 8, 1, _state, lambda row: row.state.word, right=False),
    Column("samples/s", 9, 1, lambda row: rate(row.samples_per_s), lambda r: _low(r.samples_per_s), True),
    Column("share", 11, 3, _share_cell, lambda row: _low(row.share), True),
    Column("busy", 4, 5, lambda row: share(row.busy), lambda row: _low(row.busy), True),
    Column("held", 4, 6, lambda row: str(row.held), lambda row: row.held, True),
    Column("queue", 12, 9, lambda row: row.queue, lambda row: row.queue, right=False),
    Column("serves", 6, 7, lambda row: str(row.serves), lambda row: row.serves, True),
    Column("samples", 11, 8, lambda row: f"{row.samples:,}", lambda row: row.samples, True),
    Column("batch", 5, 11, lambda row: row.batch),
    Column("up", 6, 9, lambda row: duration(row.up_s), lambda row: row.up_s, True),
    Column("heard", 6, 12, lambda row: f"{row.silent_s:.1f}s", lambda row: row.silent_s, True),
    Column("host", 0, 10, lambda row: shown(row.host), lambda row: row.host, right=False),
    Column("pid", 7, 13, lambda row: str(row.pid)),
    Column("note", 0, 14, lambda row: shown(row.note), right=False, most=60),
)

STUDENTS: tuple[Column[StudentRow], ...] = (
    Column("rank", 4, 0, lambda row: "-" if row.rank is None else str(row.rank), _own),
    Column(
        "host", 0, 5, lambda row: shown(row.host), lambda row: (row.host, _own(row)), right=False, most=16
    ),
    Column("state", 8, 1, _state, lambda row: row.state.word, right=False),
    Column("buffer", 14, 1, _buffer, lambda row: row.buffered, right=False),
    Column("steps/s", 7, 2, lambda row: rate(row.steps_per_s), lambda row: _low(row.steps_per_s), True),
    Column("samples/s", 9, 3, lambda row: rate(row.samples_per_s), lambda r: _low(r.samples_per_s), True),
    Column("starved", 7, 2, _starved, lambda row: _low(row.starved), True),
    Column("in all", 7, 4, lambda row: duration(row.starved_s), lambda row: row.starved_s, True),
    Column("full", 6, 8, lambda row: duration(row.full_s), lambda row: row.full_s, True),
    Column("batches", 9, 9, lambda row: f"{row.batches:,}", lambda row: row.batches, True),
    Column("workers", 7, 6, lambda row: str(row.workers), lambda row: row.workers, True),
    Column("up", 6, 7, lambda row: duration(row.up_s), lambda row: row.up_s, True),
    Column("heard", 6, 11, lambda row: f"{row.silent_s:.1f}s", lambda row: row.silent_s, True),
    Column("id", 0, 10, lambda row: shown(row.id), lambda row: row.id, right=False),
    Column("pid", 7, 12, lambda row: str(row.pid)),
    Column("note", 0, 13, lambda row: shown(row.note), right=False, most=60),
)
