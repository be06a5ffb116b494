"""No file is so long that a second noun hides in it."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("edldist", "launch", "benchmarks", "examples", "tests")
MOST_LINES = 500


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_file_has_more_lines_than_a_reader_keeps_in_mind(folder: str) -> None:
    lines = {path: len(path.read_bytes().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert lines
    long = {str(path.relative_to(ROOT)): count for path, count in lines.items() if count > MOST_LINES}
    assert not long, f"look for the second noun in {long}, and give it a file of its own"
