"""Process 1 of a container: orphans, signals and exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edldist_launch.plan.commands import own_command

pytestmark = pytest.mark.timeout(240)

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")

PRELUDE = """
import os, pathlib, signal, subprocess, sys, time
from edldist_launch.process.init import leave_process_one
leave_process_one()
assert os.getpid() != 1 and os.getppid() == 1
def until(condition):
    deadline = time.monotonic() + 90
    while not condition():
        if time.monotonic() > deadline: sys.exit(99)
        time.sleep(0.01)
"""
ORPHAN = """
def states():  # of all processes here, by the second-last word before the numbers: Z is a zombie
    found = {}
    for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try: found[int(path.parent.name)] = path.read_text().rpartition(")")[2].split()[0]
        except OSError: pass
    return found
own = subprocess.Popen([sys.executable, "-c", "raise SystemExit(5)"])
middle = subprocess.Popen(["sh", "-c", "sleep 0.3 & echo $!"], stdout=subprocess.PIPE, text=True)
orphan = int(middle.communicate()[0])
until(lambda: orphan not in states())
until(lambda: own.poll() is not None)
assert own.returncode == 5, "the exit codes of its own children are its own"
assert "Z" not in states().values(), states()
sys.exit(7)
"""
SIGNAL = """
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
os.kill(1, signal.SIGTERM)
until(lambda: asked)
os.kill(os.getpid(), signal.SIGKILL)
"""


def as_process_one(*command: str) -> subprocess.CompletedProcess[str]:
    if subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode != 0:
        pytest.skip("making a namespace of processes needs rights")
    return subprocess.run([*NAMESPACE, *command], capture_output=True, text=True, timeout=150)


def test_orphans_are_collected_and_own_children_left_alone() -> None:
    done = as_process_one(sys.executable, "-c", PRELUDE + ORPHAN)
    assert done.returncode == 7, done.stderr


def test_signals_reach_the_command_and_its_end_is_the_containers() -> None:
    done = as_process_one(sys.executable, "-c", PRELUDE + SIGNAL)
    assert done.returncode == 128 + 9, done.stderr


def test_every_command_leaves_process_one_first(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("")
    (tmp_path / "job.yaml").write_text(
        "name: j\nteachers: [{model: 'a:b'}]\nstudent: {script: s.py}\nprepare: {script: p.py}\n"
    )
    words = (
        "import os\n"
        "def parent(pid): return int(open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[1])\n"
        "print('line', os.getppid() != 1, parent(os.getppid()) == 1)\nraise SystemExit(3)\n"
    )
    (tmp_path / "p.py").write_text(words)
    done = as_process_one(*own_command("run", str(tmp_path / "job.yaml"), "--output", str(tmp_path / "out")))
    assert done.returncode == 1
    assert "line True True" in done.stdout
