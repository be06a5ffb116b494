"""A child ends by itself or by its time, and leaves nobody behind."""

from __future__ import annotations

import os
import subprocess
import sys

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
assert not list(pathlib.Path(tempfile.gettempdir()).glob("mutant-*")), "files of a child"
print("all ended")
"""


def test_children_end_with_all_that_they_have_started(tmp_path) -> None:
    command = [sys.executable, "-c", CHECK]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.stdout == "all ended\n", done.stderr
