"""Lines of several processes, as ``edldist logs`` shows them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator

import pytest

from edldist_launch.view.logs import last_lines, show_logs

BEFORE = ["t-0: a", "t-0: b", "t-0: c", "student-0: x: y"]


class Job:
    """Prints some more lines once it is followed, of a process that comes later, too."""

    def __init__(self, later: Iterable[str] = ()) -> None:
        self.later = list(later)

    def read(self, follow: bool) -> Iterator[str]:
        # Processes are followed side by side: their lines come in another order, each process's in its own.
        yield from (BEFORE[3:] + BEFORE[:3] + self.later) if follow else BEFORE


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, []), (1, [BEFORE[2], BEFORE[3]]), (2, BEFORE[1:]), (3, BEFORE), (9, BEFORE)],
)
def test_of_each_process_the_last_lines_are_told(count: int, shown: list[str]) -> None:
    assert list(last_lines(Job().read, count, follow=False)) == shown


def test_what_comes_after_them_is_told_once_and_whole() -> None:
    later = ["t-0: d", "t-1: a", "student-0: x: y", "t-0: e"]
    assert list(last_lines(Job(later).read, 1, follow=True)) == [BEFORE[2], BEFORE[3], *later]
    assert list(last_lines(Job(later).read, 0, follow=True)) == later


def test_lines_as_json_keep_what_was_printed() -> None:
    stream = io.StringIO()
    show_logs(["t-0: loss: 3 \x1b[31m", "t-1: "], stream, as_json=True)
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"process": "t-0", "line": "loss: 3 \x1b[31m"},
        {"process": "t-1", "line": ""},
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_no_line_of_a_job_that_is_followed_waits_for_the_next(as_json: bool) -> None:
    """In a pipe, as to ``grep``, a stream keeps what it has until it is told."""
    pipe = io.BytesIO()
    stream = io.TextIOWrapper(io.BufferedWriter(pipe), encoding="utf-8")  # type: ignore[arg-type]
    seen = []

    def lines() -> Iterator[str]:
        yield "t-0: a"
        seen.append(pipe.getvalue())

    show_logs(lines(), stream, as_json=as_json, at_once=True)
    assert len(seen[0]) > 5
