"""A child's output reaches its log, and never waits for the disk."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edldist_launch.local.child import Child
from edldist_launch.local.log_pipe import LogPipe
from edldist_launch.local.relay import Log, Relay


def test_output_is_appended(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("before\n")
    relay = Relay(Log(str(tmp_path / "log")))
    for number in range(1000):
        relay.take(b"%d\n" % number)
    relay.end()
    assert (tmp_path / "log").read_text().split() == ["before", *map(str, range(1000))]


def test_a_file_that_is_full_says_what_is_missing_when_it_has_room(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"))
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    log.write(b"one\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, (6, former[1]))
    log.write(b"two\n")
    log.write(b"three\n")
    resource.setrlimit(resource.RLIMIT_FSIZE, former)
    log.write(b"four\n")
    text = (tmp_path / "log").read_text()
    assert text == "one\ntw\n[8 bytes of output are missing here: File too large]\nfour\n"


def test_a_log_whose_folder_comes_late_is_written_then(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "logs" / "log"))
    log.write(b"lost")
    (tmp_path / "logs").mkdir()
    log.write(b"there")
    assert "4 bytes of output are missing" in (tmp_path / "logs" / "log").read_text()


class Hanging:
    """A log on a disk that hangs until it is told to go on."""

    def __init__(self) -> None:
        self.on = threading.Event()
        self.written: list[bytes] = []
        self.missing = 0

    def write(self, data: bytes) -> None:
        assert self.on.wait(30)
        self.written.append(data)

    def missed(self, size: int, why: str) -> None:
        self.missing += size


def test_a_disk_that_hangs_holds_up_nobody_and_no_more_memory_than_allowed() -> None:
    log = Hanging()
    relay = Relay(log, most_waiting_bytes=100)  # type: ignore[arg-type]
    for _ in range(50):
        relay.take(bytes(10))
    log.on.set()
    relay.end()
    assert 100 <= sum(map(len, log.written)) <= 120
    assert log.missing + sum(map(len, log.written)) == 500


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_carrier_heeds_no_wish_to_end_and_is_replaced_if_it_is_killed(tmp_path: Path) -> None:
    pipe = LogPipe(tmp_path / "log")
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        pipe._relay.send_signal(signum)
    os.write(pipe.write_end, b"one\n")
    until(lambda: (tmp_path / "log").exists() and (tmp_path / "log").read_text() == "one\n")
    pipe._relay.kill()
    pipe._relay.wait()
    os.write(pipe.write_end, b"two\n")
    pipe.look_after()
    pipe.finish()
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_a_carrier_inherits_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody")
    pipe = LogPipe(tmp_path / "log")
    environ = Path(f"/proc/{pipe._relay.pid}/environ")
    until(lambda: b"PATH=" in environ.read_bytes())
    assert b"hf_of_somebody" not in environ.read_bytes()
    pipe.finish()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_child_whose_log_cannot_be_written_prints_and_ends_well(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to("/dev/full")
    talk = "for n in range(20_000): print('a line that is lost', flush=True)"
    child = Child("c", [sys.executable, "-c", talk], dict(os.environ), tmp_path / "log")
    child.start()
    until(lambda: child.poll() is not None)
    assert child.poll() == 0


def test_children_of_a_killed_launcher_can_still_write_their_last_words(tmp_path: Path) -> None:
    words = (
        "import signal, sys, time\n"
        "def leave(*args):\n"
        "    time.sleep(0.2); print('saved', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "print('up', flush=True); time.sleep(60)\n"
    )
    launcher = (
        "import os, sys, time\nfrom pathlib import Path\nfrom edldist_launch.local.child import Child\n"
        "child = Child('c', [sys.executable, '-c', sys.argv[1]], dict(os.environ), Path(sys.argv[2]))\n"
        "child.start()\ntime.sleep(60)\n"
    )
    log = tmp_path / "log"
    process = subprocess.Popen([sys.executable, "-c", launcher, words, str(log)])
    try:
        until(lambda: log.exists() and log.read_text().endswith("up\n"))
    finally:
        process.kill()
        process.wait()
    until(lambda: log.read_text().endswith("saved\n"))
