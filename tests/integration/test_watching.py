"""Watching never fails the work: full disks, lost terminals, and texts that make no sense."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edldist_launch.record.eventfile import read_events
from tests.integration.launching import WAIT, Start, all_up, folder, result, start, until

__all__ = ["folder", "start"]  # fixtures

pytestmark = pytest.mark.timeout(240)

FILL = """
import os, time
def fill():
    with open(os.environ["EDLDIST_OUTPUT"] + "/full", "ab", buffering=0) as file:
        for size in (65536, 512, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass
fill()
for line in range(2000):
    print("a line that the disk does not take", flush=True)
fill()
import edldist
for step in range(100):
    edldist.report(step=step, note="an event that the disk does not take")
print("printed everything", flush=True)
"""
MAKE_ROOM = """
os.unlink(os.environ["EDLDIST_OUTPUT"] + "/full")
time.sleep(0.5)
print("the last words", flush=True)
"""


@pytest.fixture
def tiny_disk(folder: Path) -> Iterator[Path]:
    """A file system of a few hundred kilobytes in the place of the output folder."""
    place = folder / "out"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a file system needs rights")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_stays_full_changes_nothing_for_the_job(start: Start, tiny_disk: Path) -> None:
    job = start(student=FILL)
    output, _ = job.communicate()
    assert job.returncode == 0, output
    assert "status" in output and "completed" in output
    assert output.count("cannot write") == 4, "events, what is placed, result and report, each once"
    said = json.loads(output[output.index('{"status"') :].splitlines()[0])
    assert (said["status"], said["job"]) == ("completed", "toy")


FILL_AT_THE_END = (
    FILL[: FILL.index("fill()\nfor line")]
    + """
import edldist
for step in range(1, 4):
    edldist.report(step=step, loss=1.0 / step)
while open(os.environ["EDLDIST_OUTPUT"] + "/events.jsonl").read().count('"progress"') < 2:
    time.sleep(0.05)
fill()
"""
)


@pytest.mark.slow
def test_a_picture_that_the_disk_does_not_take_is_one_line_and_no_file(
    start: Start, folder: Path, tiny_disk: Path
) -> None:
    output, _ = start(student=FILL_AT_THE_END).communicate()
    assert output.count("curves.png") == 1, output
    assert "curves.png (No space left on device)" in output
    assert "Traceback" not in output
    assert not list(tiny_disk.glob("*curves*"))
    assert output.splitlines()[-1].startswith("in out: events.jsonl, logs")


OBEYED = "\x1b[2J\x1b]0;title\x07\x9b31m\x7f"
SAY_IT = f"print({OBEYED!r}, 'said', flush=True)"


def test_what_a_program_printed_is_shown_and_not_obeyed(start: Start, folder: Path) -> None:
    with (folder / "job.yaml").open("a") as job_file:
        job_file.write("prepare: {script: prepare.py}\n")
    (folder / "prepare.py").write_text(f"{SAY_IT}\nprint('10%\\r20%')\n")
    output, _ = start(student=f"{SAY_IT}\nraise ValueError({OBEYED!r})", text=False).communicate()
    text = output.decode()
    assert text.count("said") == 2 and "10%\r20%" in text
    assert not set(text) & set(OBEYED) - set("[2J]0;title31m"), text
    assert OBEYED in (folder / "out" / "logs" / "student-0.log").read_text()  # a file keeps what was said


def test_a_disk_that_has_room_again_gets_every_event_and_the_result(
    start: Start, folder: Path, tiny_disk: Path
) -> None:
    job = start(student=FILL + MAKE_ROOM)
    output, _ = job.communicate()
    assert job.returncode == 0, output
    assert result(folder)["status"] == "completed"
    names = [event["event"] for event in read_events(folder / "out" / "events.jsonl")]
    assert names[0] == "job_started" and names[-1] == "job_completed"
    assert "student_stopped" in names
    log = (folder / "out" / "logs" / "student-0.log").read_text()
    assert log.endswith("the last words\n") and "bytes of output are missing" in log


def test_a_terminal_that_goes_away_changes_nothing_for_the_job(start: Start, folder: Path) -> None:
    """As when a connection breaks and the job was started under nohup."""
    master, terminal = pty.openpty()
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        student = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.02)"
        job = start(student=student, stdout=terminal, stderr=terminal)
    finally:
        signal.signal(signal.SIGHUP, former)
        os.close(terminal)
    until(all_up(folder))
    os.close(master)
    time.sleep(0.6)  # two looks at the job, without a terminal
    (folder / "go").touch()
    assert job.wait(30) == 0
    assert result(folder)["status"] == "completed"


def test_a_reader_that_stops_reading_holds_up_nothing(start: Start, folder: Path) -> None:
    with (folder / "job.yaml").open("a") as job_file:
        job_file.write("prepare: {script: prepare.py}\n")
    (folder / "prepare.py").write_text("print('x' * 300_000)\n")
    job = start(student="pass")
    assert job.wait(30) == 0  # and only then is its output read
    assert result(folder)["status"] == "completed"


def test_an_encoding_without_our_characters_changes_nothing(start: Start, folder: Path) -> None:
    job = start(student="pass", env={"PYTHONIOENCODING": "ascii"})
    output, _ = job.communicate()
    assert job.returncode == 0, output
    assert "status" in output and "completed" in output


REPORTS = r"""
import edldist
from edldist.observe.reporter import event
odd = {"answer": "answer [/INST]", "odd": "/data/\udcff.jpg", "loss": float("nan")}
edldist.report(step=3, place="[/data/run1]", **odd)
event("teacher_lost", id="[/x]", silent_s="soon", t="never")
event("task_poisoned", error="\x1b[2J /data/\udcff.jpg", batch=[None][0])
"""


def test_reports_and_events_of_any_kind_end_no_job(start: Start, folder: Path) -> None:
    job = start(student=REPORTS, teacher=WAIT)
    output, _ = job.communicate()
    assert job.returncode == 0, output
    for text in ("[/data/run1]", "answer [/INST]", "/data/?.jpg"):
        assert text in output
    assert "\x1b" not in output
    assert result(folder)["metrics"]["place"] == "[/data/run1]"
