"""A rank that ends quickly loses nothing but the search for garbage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edldist.lifecycle.notes import NOTES_VARIABLE

SCRIPT = """
import atexit, gc, os, signal, sys, weakref
frozen = lambda: print("frozen", gc.get_freeze_count() > 1000)
atexit.register(frozen)

class Books:
    pass

books = Books()
books.me = books  # only the search for garbage would find it
books.file = open(sys.argv[1], "w")
books.file.write("kept")
weakref.finalize(Books, print, "finalized")
from edldist.lifecycle import stopping
print("asked", stopping.should_stop())
del books
{}
"""


def ended(tmp_path: Path, body: str) -> tuple[int, list[str], str]:
    written = tmp_path / "written"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(body), str(written)],
        env=dict(os.environ, **{NOTES_VARIABLE: str(tmp_path / "notes")}),
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.returncode, done.stdout.splitlines(), written.read_text()


@pytest.mark.parametrize(
    ("body", "code", "quick"),
    [
        ("os.kill(os.getpid(), signal.SIGTERM); sys.exit(3)", 3, True),
        ("raise RuntimeError('the group broke')", 1, True),
        ("sys.exit(4)", 4, False),
    ],
)
def test_what_was_written_and_who_waits_for_the_end_get_their_due(
    tmp_path: Path, body: str, code: int, quick: bool
) -> None:
    assert ended(tmp_path, body) == (
        code,
        ["asked False", *sorted(["finalized", f"frozen {quick}"])],
        "kept",
    )
