"""Temporary folders of checkpoints on object stores: gone in every ending, and those of the killed too."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest
from torch import nn

from edldist.checkpoint import scratch
from edldist.checkpoint.checkpointer import Checkpointer
from edldist.checkpoint.scratch import Scratch
from edldist.observe import reporter


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr(reporter, "event", lambda name, **fields: None)
    return place


def left(place: Path) -> list[str]:
    return sorted(entry.name for entry in place.iterdir())


def test_folders_go_one_by_one_and_the_rest_with_their_owner(place):
    mine = Scratch()
    one, two = mine.folder("one"), mine.folder("two")
    (one / "file").write_text("x")
    assert mine.folder("one") == one and (one / "file").exists()
    mine.remove("one")
    mine.remove("never made")
    assert not one.exists() and two.is_dir()
    mine.close()
    mine.close()
    assert left(place) == []
    assert mine.folder("again").is_dir()
    del mine
    assert left(place) == []


def test_a_failing_upload_and_a_failing_download_leave_nothing(place, monkeypatch):
    url = f"memory://{uuid.uuid4().hex}"
    model = nn.Linear(2, 2)
    with Checkpointer(url) as checkpointer:
        checkpointer.save(1, {"model": model}, wait=True)
        [root] = place.iterdir()
        assert left(root) == []

        def full(*args, **kwargs):
            raise OSError(28, "No space left on device")

        fs = type(checkpointer._store._fs)
        with monkeypatch.context() as patch:
            patch.setattr(fs, "put_file", full)
            checkpointer.save(2, {"model": model}, wait=True)
        assert checkpointer.failures == 1 and left(root) == []
        with monkeypatch.context() as patch, pytest.raises(Exception, match="No space left"):
            patch.setattr(fs, "get_file", full)
            checkpointer.restore({"model": model})
        assert left(root) == []
        assert checkpointer.restore({"model": model}) == 1 and left(root) == []
    assert left(place) == []


HOLDER = """
import os, sys, tempfile
from edldist.checkpoint.scratch import Scratch
tempfile.tempdir = sys.argv[1]
mine = Scratch()
(mine.folder("draft") / "file").write_text("x")
if sys.argv[2] == "raise":
    raise SystemExit(3)
if os.fork() == 0:  # as a data-loader worker does, which may outlive its parent for a while
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)
sys.stdin.read()
"""


def holder(place: Path, ending: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLDER, str(place), ending]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_an_ending_process_removes_its_own(place):
    with holder(place, "raise") as process:
        assert process.wait(60) == 3
    assert left(place) == []


def test_what_a_killed_process_left_is_removed_by_the_next_but_not_what_lives(place, monkeypatch):
    monkeypatch.setattr(scratch, "SETTLING_S", -1.0)
    with holder(place, "wait") as process:
        try:
            assert process.stdout.readline() == "ready\n"
            [theirs] = left(place)
            mine = Scratch()
            mine.folder("draft")
            assert theirs in left(place)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        other = Scratch()
        other.folder("draft")  # though the killed one's child still lives
        assert theirs not in left(place) and len(left(place)) == 2
        process.stdin.close()


def test_a_folder_that_is_just_being_made_is_left_alone(place):
    fresh = place / f"{scratch.PREFIX}fresh"
    fresh.mkdir()
    scratch.remove_abandoned()
    assert left(place) == [fresh.name]
    os.utime(fresh, (0, 0))
    scratch.remove_abandoned()
    assert left(place) == []


def test_a_file_system_without_locks_keeps_working(place, monkeypatch):
    def none(*args):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", none)
    mine = Scratch()
    assert mine.folder("draft").is_dir()
    del mine
    assert left(place) == []
