"""A rank that ends with a final error says so to its supervisor, and only then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edldist.errors import CheckpointError, ConfigError, EdlDistError, PoisonTaskError
from edldist.lifecycle.notes import NOTES_VARIABLE
from edldist.ranks.agreement import RankFailedError, Ranks

SCRIPT = """
import os
from edldist.errors import ConfigError
from edldist.lifecycle import exit_hooks
exit_hooks.install()
{}
"""


def notes_of(tmp_path: Path, body: str) -> tuple[int, str]:
    book = tmp_path / "ranks"
    environment = dict(os.environ, **{NOTES_VARIABLE: str(book)})
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(body))
    code = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True).returncode
    return code, book.read_text() if book.exists() else ""


def test_a_final_error_leaves_a_note_of_one_line(tmp_path: Path) -> None:
    code, text = notes_of(tmp_path, "raise ConfigError('too\\nmany ranks')")
    assert code == 1
    kind, name, reason = text.split(maxsplit=2)
    assert (kind, len(name), reason) == ("end", 32, "ConfigError: too many ranks\n")


def test_a_note_has_the_errors_of_tracebacks_and_not_their_frames(tmp_path: Path) -> None:
    message = (
        "job.yaml: 1 problem\n  name: missing\n"
        "Traceback (most recent call last):\n  File 'a.py', line 1, in f\n    raise\nValueError: no\n"
        "  and more"
    )
    _, text = notes_of(tmp_path, f"raise ConfigError({message!r})")
    assert text.endswith(" ConfigError: job.yaml: 1 problem name: missing ValueError: no and more\n")


def test_a_final_error_about_an_odd_file_name_leaves_its_note(tmp_path: Path) -> None:
    _, text = notes_of(tmp_path, r"raise ConfigError('no such file: /data/\udcff.jpg')")
    assert text.endswith(" ConfigError: no such file: /data/?.jpg\n")


@pytest.mark.parametrize(
    "body",
    [
        "raise ValueError('the script itself')",
        "raise SystemExit(3)",
        "try:\n    raise ConfigError('handled')\nexcept ConfigError:\n    pass",
        "busy = ConfigError('may pass')\nbusy.final = False\nraise busy",
    ],
)
def test_other_ends_leave_none(tmp_path: Path, body: str) -> None:
    assert notes_of(tmp_path, body)[1] == ""


def test_which_errors_are_final() -> None:
    assert ConfigError("x").final and CheckpointError("x").final
    assert PoisonTaskError("t", 0, range(2), ["x"]).final
    assert not EdlDistError("x").final


@pytest.mark.parametrize(("error", "final"), [(ConfigError("x"), True), (OSError("x"), False)])
def test_a_failure_among_ranks_is_as_final_as_its_cause(error: Exception, final: bool) -> None:
    def work() -> None:
        raise error

    with pytest.raises(RankFailedError) as caught:
        Ranks().each(work)
    assert caught.value.final is final
