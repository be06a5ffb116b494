"""Checkpoints of processes that are killed, that meet a full disk, or that share a directory."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from edldist.checkpoint import lock
from edldist.checkpoint.lock import DirectoryLock
from edldist.errors import CheckpointError

PRELUDE = """
import builtins, io, json, os, resource, shutil, signal, sys
import torch
from edldist.checkpoint.checkpointer import Checkpointer
torch.set_num_threads(1)
root = sys.argv[1]

class Weights:
    def __init__(self, value, size=20_000):
        self.tensor = torch.full((size,), float(value))
    def state_dict(self):
        return {"tensor": self.tensor, "value": float(self.tensor[0])}
    def load_state_dict(self, state):
        self.tensor = state["tensor"]
        assert (self.tensor == state["value"]).all()
"""

KILLS = """
def kill_at_call(number):
    calls = 0
    def deadly(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call
    for module, names in ((os, "fsync rename mkdir unlink rmdir open"), (io, "open"), (builtins, "open")):
        for name in names.split():
            setattr(module, name, deadly(getattr(module, name)))

def restored(place):
    weights = Weights(0)
    with Checkpointer(place, keep=1) as checkpointer:
        step = checkpointer.restore({"weights": weights})
    return step, float(weights.tensor[0])

base = root + "/base"
with Checkpointer(base, keep=1) as checkpointer:
    checkpointer.save(1, {"weights": Weights(10)})
whole = len(os.listdir(base + "/step-00000001"))
report = {}
for step in (1, 2):  # replacing the only checkpoint, and following it
    outcomes, number, finished = [], 0, False
    while not finished:
        number += 1
        place = f"{root}/{step}-{number}"
        shutil.copytree(base, place)
        pid = os.fork()
        if pid == 0:
            with Checkpointer(place, keep=1) as checkpointer:
                kill_at_call(number)
                checkpointer.save(step, {"weights": Weights(20)}, wait=True)
            os._exit(0 if checkpointer.failures == 0 else 1)
        status = os.waitpid(pid, 0)[1]
        finished = status == 0
        assert finished or os.WIFSIGNALED(status), status
        found = restored(place)
        for name in os.listdir(place):
            if name.startswith("step-"):
                assert len(os.listdir(f"{place}/{name}")) == whole, f"half of {name} after call {number}"
        outcomes.append([*found, sorted(os.listdir(place))])
        shutil.rmtree(place)
    report[step] = outcomes
print(json.dumps(report))
"""

FULL_DISK = """
place, report = root + "/checkpoints", []
weights = Weights(1)
with Checkpointer(place) as checkpointer:
    checkpointer.save(1, {"weights": weights}, wait=True)
    for limit_bytes in (0, 70, 300, 2_000, 9_000, 50_000):
        failures = checkpointer.failures
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))
        checkpointer.save(2, {"weights": Weights(2)})
        weights.tensor += 0  # training goes on
        checkpointer.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        step = checkpointer.restore({"weights": weights})
        failed = checkpointer.failures - failures
        report.append([failed, checkpointer.last_error, step, sorted(os.listdir(place))])
    checkpointer.save(2, {"weights": Weights(2)}, wait=True)
    report.append([0, None, checkpointer.restore({"weights": weights}), sorted(os.listdir(place))])
Checkpointer(place).save(3, {"weights": Weights(3, size=5_000_000)})
print(json.dumps(report))
"""


def run(script, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDLDIST_") and k != "WORLD_SIZE"}
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_kill_at_any_moment_of_a_save_leaves_a_whole_checkpoint(tmp_path):
    report = run(KILLS, tmp_path)
    for step, outcomes in ((1, report["1"]), (2, report["2"])):
        assert len(outcomes) > 20, "the fault did not fire at every phase"
        for found_step, value, entries in outcomes:
            assert (found_step, value) in ((1, 10.0), (step, 20.0))
            assert not [entry for entry in entries if "." in entry.lstrip(".")], entries  # no leftovers
        values = [value for _, value, _ in outcomes]
        assert values[0] == 10.0 and values[-1] == 20.0
        assert values == sorted(values)


def test_a_full_disk_is_survived_at_every_size(tmp_path):
    *limited, last = run(FULL_DISK, tmp_path)
    for failures, error, step, entries in limited:
        assert (failures, step) == (1, 1)
        assert "File too large" in error
        assert entries == [".lock", "step-00000001"]
    assert last[2:] == [2, [".lock", "step-00000001", "step-00000002"]]
    # The script ended without close(), and its last save all the same.
    assert (tmp_path / "checkpoints" / "step-00000003" / "COMMITTED").exists()


HOLDER = """
    import os, sys
    from pathlib import Path
    from edldist.checkpoint.lock import DirectoryLock
    lock = DirectoryLock(Path(sys.argv[1]))
    lock.acquire()
    if os.fork() == 0:  # as a data-loader worker does, which may outlive its parent for a while
        sys.stdin.read()
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_directory_in_use_is_refused_until_its_holder_is_killed(tmp_path, monkeypatch):
    path = tmp_path / ".lock"
    ours = DirectoryLock(path)
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            monkeypatch.setattr(lock, "HANDOVER_S", 0.2)
            with pytest.raises(CheckpointError, match=f"pid {holder.pid} on "):
                ours.acquire()
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
        monkeypatch.setattr(lock, "HANDOVER_S", 5.0)
        ours.acquire()  # though the holder's child still lives
        assert f'"pid":{os.getpid()},' in path.read_text()
        ours.release()
        holder.stdin.close()
