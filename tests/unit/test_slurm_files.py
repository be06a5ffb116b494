"""The small files of a Slurm job, and the logs of its attempts."""

from __future__ import annotations

from pathlib import Path

import pytest

from edldist.errors import LaunchError
from edldist_launch.slurm.attempts import Attempts
from edldist_launch.slurm.files import JobFiles
from edldist_launch.slurm.layout import Layout


@pytest.fixture
def files(tmp_path: Path) -> JobFiles:
    made = JobFiles(Layout("digits", tmp_path))
    made.begin({})
    return made


def test_a_submission_leaves_nothing_of_the_one_before(files: JobFiles) -> None:
    layout = files.layout
    files.note_wanted({"student": 2})
    files.ask_stop()
    files.take_charge("one")
    (layout.ended / "student-0").write_text("1\n")
    layout.address_file.write_text("{}")
    script = layout.script("student", "student")
    files.begin({script: "#!/bin/bash\n"})
    assert files.wanted() == {} and not files.stopping and files.ended() == {}
    assert files.in_charge("anybody") and not layout.address_file.exists()
    assert script.read_text() == "#!/bin/bash\n" and layout.slurm_logs.is_dir()
    assert script.stat().st_mode & 0o777 == 0o600, "it sets the job's variables, of which some are secret"


def test_exit_codes_are_read_and_what_is_none_is_not(files: JobFiles) -> None:
    for name, text in {"student-0": "0\n", "teacher-10": "-9\n", ".student-1.new": "1", "odd": "x"}.items():
        (files.layout.ended / name).write_text(text)
    assert files.ended() == {"student-0": 0, "teacher-10": -9}
    files.forget("student-0")
    files.forget("nobody")
    assert files.ended() == {"teacher-10": -9}


def test_the_placer_says_how_many_it_keeps(files: JobFiles) -> None:
    assert files.wanted() == {}
    files.note_wanted({"teacher": 8, "student": 2})
    assert files.wanted() == {"teacher": 8, "student": 2}
    files.layout.wanted_file.write_text("{")
    assert files.wanted() == {}


def test_the_placer_that_came_last_is_in_charge(files: JobFiles) -> None:
    files.take_charge("one")
    assert files.in_charge("one") and not files.in_charge("two")
    files.take_charge("two")
    assert not files.in_charge("one") and files.in_charge("two")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "slurm").write_text("a file")
    with pytest.raises(LaunchError, match=f"cannot write {tmp_path}/slurm: "):
        JobFiles(Layout("digits", tmp_path)).begin({})
    with pytest.raises(LaunchError, match="cannot write .*/stop: "):
        JobFiles(Layout("digits", tmp_path)).ask_stop()


# --- logs -------------------------------------------------------------------------------------------


def write(layout: Layout, process: str, attempt: int, text: str) -> None:
    folder = layout.log_folder(process) / str(attempt)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("a") as log:
        log.write(text)


def test_the_latest_attempt_has_the_last_word(tmp_path: Path) -> None:
    layout = Layout("digits", tmp_path)
    attempts = Attempts(layout)
    assert attempts.count("student-0") == 0 and attempts.output("student-0") == ""
    for number in (0, 2, 10):
        write(layout, "student-0", number, "".join(f"{number}: line {line}\n" for line in range(50)))
    assert attempts.count("student-0") == 3
    assert attempts.output("student-0", lines=2) == "10: line 48\n10: line 49"


def test_lines_are_followed_from_one_attempt_into_the_next_until_the_end(tmp_path: Path) -> None:
    layout = Layout("digits", tmp_path)
    write(layout, "b-0", 0, "one\nhal")
    moments = iter(
        [
            lambda: write(layout, "b-0", 0, "f\n"),
            lambda: (write(layout, "b-0", 1, "again\n"), write(layout, "a-0", 0, "late\n")),
            lambda: write(layout, "b-0", 1, "unfinished"),
        ]
    )
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        next(moments)()

    names = ["b-0", "a-0"]
    lines = list(Attempts(layout).follow(lambda: names, lambda: len(waits) == 3, wait))
    assert lines == ["b-0: one", "b-0: half", "a-0: late", "b-0: again", "b-0: unfinished"]


def test_all_that_is_there_is_told_at_once(tmp_path: Path) -> None:
    layout = Layout("digits", tmp_path)
    write(layout, "s-0", 0, "x" * 3_000_000 + "\nlast")
    lines = list(Attempts(layout).follow(lambda: ["s-0"], lambda: True))
    assert lines[-1] == "s-0: last" and sum(len(line) - 5 for line in lines) == 3_000_004
