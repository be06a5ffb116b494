"""A child ends by itself or by its time, and leaves nobody behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

CHECK = """
import os, pathlib, sys, tempfile, time
from tests.mutation.children import Children, Limit

PATIENT = Limit(1e6, 1e6)
children = Children(show=False)
children.progress.keep(2)

def child(run, limit=lambda test: PATIENT):
    if not (pid := children.begin()):
        run()
        os._exit(5)
    return pid, children.end(pid, limit)

def passes():
    children.progress.begin(1)
    print("heard by nobody")
    pathlib.Path(os.environ["PYTEST_DEBUG_TEMPROOT"], "left").write_text("x")
    children.progress.end()

_, ended = child(passes)
assert (ended.code, ended.test, ended.took_too_long) == (5, 1, False), ended
assert children.progress.took(1).wall_s > 0 == children.progress.took(0).wall_s

def computes():
    children.progress.begin(0)
    while True:
        pass

_, ended = child(computes, lambda test: Limit(0.2, 1e6) if test == 0 else PATIENT)
assert (ended.code, ended.test, ended.took_too_long) == (None, 0, True), ended

def waits():
    children.progress.begin(1)
    time.sleep(1e6)

_, ended = child(waits, lambda test: Limit(1e6, 0.2) if test == 1 else PATIENT)
assert (ended.code, ended.test, ended.took_too_long) == (None, 1, True), ended

def dies():
    os.abort()

_, ended = child(dies)
assert (ended.code, ended.test, ended.took_too_long) == (None, -1, False), ended

read, write = os.pipe()  # closed by all when nobody is left
def leaves_others():
    for session in (False, True):
        if not os.fork():
            if session:
                os.setsid()
            time.sleep(1e6)

child(leaves_others)
os.close(write)
assert os.read(read, 1) == b""
assert not list(pathlib.Path(tempfile.gettempdir()).glob("m-*")), "files of a child"
print("all ended")
"""


def test_children_end_with_all_that_they_have_started(tmp_path) -> None:
    command = [sys.executable, "-c", CHECK]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout == "all ended\n", done.stderr


ENDED = """
import os, pathlib, signal, sys, tempfile, time
from tests.mutation.children import Children, die_with_parent, own_place

signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background may ignore it
read, write = os.pipe()
with own_place():
    if not os.fork():
        die_with_parent()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        children = Children(show=True)
        if not children.begin():
            place = pathlib.Path(tempfile.gettempdir())
            os.write(write, b"x")
            for number in range(10**9):
                (place / str(number % 1000)).write_text("x")
        time.sleep(1e6)
    os.read(read, 1)
    print("ready", flush=True)
    time.sleep(1e6)
"""


@pytest.mark.timeout(100)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_leaves_no_files_and_nobody_who_writes_more(tmp_path, number) -> None:
    command = [sys.executable, "-c", ENDED]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        assert run.stdout.readline() == b"ready\n"
        assert [path.name[:4] for path in tmp_path.iterdir()] == ["mut-"]
        run.send_signal(number)
        assert run.stdout.read() == b"", "all that had it open have ended"
        assert run.wait() != 0
    assert not list(tmp_path.iterdir())
